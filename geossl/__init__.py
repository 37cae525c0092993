"""geossl: an encoder of your own region from unlabelled satellite imagery.

The concepts, in the order in which pixels meet them:

``Band → Sensor → Grid → Tile → Scene → Cube → Chip → Encoder → Task → Map``

Import from the module that owns a concept (``from geossl.grid import Grid``);
nothing is re-exported here, so ``import geossl`` costs nothing.
"""

import os

# None of the libraries that geossl stands on tells anybody that it runs, unless the user says so.
os.environ.setdefault("DO_NOT_TRACK", "true")

# How often torch's threads look for work before they sleep. By default they go on for so long that they take the
# processors from the threads that read. OpenMP asks once, when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")

__version__ = "0.1.0"
