"""How weights, gradients and optimizer state are distributed over the ranks: DDP, FSDP2, ZeRO."""
