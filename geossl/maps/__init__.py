"""Maps: streamed prediction, cloud-optimised rasters, polygons, styles and their publication."""
