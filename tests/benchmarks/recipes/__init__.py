"""What pretraining is worth on real sets: rows with intervals, beside the floors. See ``RECIPES.md``."""
