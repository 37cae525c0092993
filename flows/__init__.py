"""Prefect flows over geossl's stages: no pixels, no tensors, no logic that a test would want without Prefect."""

import os

import geossl  # noqa: F401  # asks not to be tracked, which counts before Prefect is imported

# nor does a server that Prefect starts for want of one
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# which takes longer to start than Prefect waits by itself (20 s) where a machine is busy
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
