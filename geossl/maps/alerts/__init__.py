"""Clearing alerts: each new look at the forest raises, confirms or withdraws them, pixel by pixel."""
