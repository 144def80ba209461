"""What an attempt writes down about itself in the run folder, and the lock that keeps others out."""
