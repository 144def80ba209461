"""Where numbers go: `metrics.jsonl` as the source of truth, W&B beside it, the terminal for the person who watches."""
