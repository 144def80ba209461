"""What a recipe comes to before a GPU is paid for: its memory under every strategy, its parameter groups."""
