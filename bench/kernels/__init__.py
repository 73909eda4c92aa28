"""One bench a kernel: compared with its reference, then timed."""
