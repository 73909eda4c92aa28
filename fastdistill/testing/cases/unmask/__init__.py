"""Cases of the kernels for filling masks."""
