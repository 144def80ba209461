"""Where weights, gradients and optimizer state lie: DDP, FSDP2, ZeRO."""
