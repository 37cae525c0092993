"""Tests of the training, over a tiny synthetic loader."""
