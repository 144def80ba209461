"""What an evaluation finds beside loss and top-k: per class, per image, and the files that hold it."""
