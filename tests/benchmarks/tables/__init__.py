"""Land cover from few labels on real imagery: every row of every table, with intervals over blocks."""
