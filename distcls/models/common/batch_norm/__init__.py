"""BatchNorm with the ReLU, sum or pooling behind it as one piece of work on a GPU: Triton kernels and their caller."""
