"""What a recipe needs of each GPU under every strategy, estimated before one is paid for."""
