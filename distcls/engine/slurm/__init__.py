"""Running under SLURM: batch scripts, `accelerate launch` on each node, and whether an ended job is requeued."""
