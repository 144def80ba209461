"""Checkpoints: what a run is at one step, written beside the training, and the weights that come of it."""
