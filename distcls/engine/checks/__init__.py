"""What is known to be wrong before the first batch, said at the recipe's line."""
