"""Cases of the kernels for checking drafts."""
