"""Speed of geossl beside what the field uses, on the same machine and the same bytes. Run by ``make bench``."""
