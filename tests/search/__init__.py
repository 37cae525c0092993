"""Similar places."""
