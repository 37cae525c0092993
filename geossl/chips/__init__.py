"""Chips: batches of small windows out of the cube, split on the ground, for training and evaluation."""
