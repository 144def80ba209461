"""From stored bytes to resized and normalised images, on a CPU or a GPU."""
