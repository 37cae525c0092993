"""Similar places: an embedding of every chip, and which of them are most alike."""
