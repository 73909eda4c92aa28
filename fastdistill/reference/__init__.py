"""NumPy meaning of each kernel and op: one file, one function, clear not fast."""
