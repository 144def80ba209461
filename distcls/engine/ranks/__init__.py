"""Processes of one run: how they find, check, watch and miss each other."""
