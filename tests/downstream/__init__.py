"""Learning from labels, scoring, and what a trained task promises."""
