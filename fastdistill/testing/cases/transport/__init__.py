"""Cases of the kernels for optimal transport."""
