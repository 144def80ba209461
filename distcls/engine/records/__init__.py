"""The records that an attempt keeps in the run folder, and the lock that keeps other processes out of it."""
