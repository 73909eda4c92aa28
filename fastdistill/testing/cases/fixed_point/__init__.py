"""Cases of the kernels for Jacobi's iteration."""
