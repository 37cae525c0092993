"""Prefect flows over geossl's stages: no pixels, no tensors, no logic that a test would want without Prefect."""
