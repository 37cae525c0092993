"""Prefect flows over geossl's stages: no pixels, no tensors, no logic that a test would want without Prefect."""

import os

import geossl  # noqa: F401  # asks not to be tracked, which counts before Prefect is imported

# nor does a server that Prefect starts for want of one
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
