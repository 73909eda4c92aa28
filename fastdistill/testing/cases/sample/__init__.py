"""Cases of the kernels for drawing tokens."""
