"""Further results of an evaluation beside loss and top-k, per class and per image, and their files."""
