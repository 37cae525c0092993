"""A generated Sentinel-2-like landscape with its truth, so that everything runs with nothing to download."""
