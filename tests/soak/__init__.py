"""A year of a generated landscape, scene by scene; and what must be left of it."""
