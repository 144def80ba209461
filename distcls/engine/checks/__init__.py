"""Checks before the first batch, whose errors point to the line of the recipe."""
