"""Benchmarks: `python -m bench` lists them.  Each checks what it times first."""
