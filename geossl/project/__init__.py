"""A region's project: its settings, what exists of it, and one stage per verb."""
