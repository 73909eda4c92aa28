"""Cases of the kernels for steps of optimisers."""
