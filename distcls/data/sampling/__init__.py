"""Which images make which batch, and where on disk they are read."""
