"""Drawings of what kernels and decoders give: in characters, and as .png files."""

from fastdistill.show.layout import layout
from fastdistill.show.trace import trace
from fastdistill.show.trace_png import trace_png
from fastdistill.show.trajectory import trajectory

__all__ = ["layout", "trace", "trace_png", "trajectory"]
