"""One attempt at a run, on every rank; session.py shows it from the first check to the last message."""
