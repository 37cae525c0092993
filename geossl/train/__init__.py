"""Pretraining: the run, its health, its checkpoints, and where it runs."""
