"""What the process of a run leaves with, for batch scripts; 0 and 1 mean what they always do. Imports no torch."""

PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: saved, start me again
NO_VALID_CHECKPOINT = 76  # fail, and do not start again
