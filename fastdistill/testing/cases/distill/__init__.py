"""Cases of the kernels for divergences."""
