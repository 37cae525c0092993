"""Imagery as it comes: scenes from folders and STAC, their clouds, and their pixels on one tile."""
