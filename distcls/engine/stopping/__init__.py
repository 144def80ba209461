"""How a run is asked to stop, how its ranks agree to, and what its caller gets."""
