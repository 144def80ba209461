"""Checkpoints: the complete state of a run at one step, written in the background; and exported weights."""
