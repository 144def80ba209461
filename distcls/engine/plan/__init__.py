"""`distcls plan` and `recipe show --params`: memory under every strategy and parameter groups, found without a GPU."""
