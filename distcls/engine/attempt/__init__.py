"""One attempt at a run, told from its first check to its last word; session.py is its way on every rank."""
