"""BatchNorm fused with the ReLU, residual sum or pooling after it, for GPUs: Triton kernels and their caller."""
