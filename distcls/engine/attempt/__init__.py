"""One attempt at a run; session.py tells it, on every rank, from its first check to its last word."""
