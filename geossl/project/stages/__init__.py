"""One file a verb; the only door that the command line and the flows use."""
