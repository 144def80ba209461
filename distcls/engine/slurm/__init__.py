"""What SLURM does with a run: its batch script, and what has to be said after it ended."""
