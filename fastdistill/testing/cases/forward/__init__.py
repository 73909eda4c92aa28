"""Cases of the kernels for rows of a forward."""
