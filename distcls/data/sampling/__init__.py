"""Sampling: which images form which batch, and how they are read from disk."""
