"""Drawings of what kernels and decoders give: in characters, and as .png files."""

from fastdistill.show.curves_png import curves_png
from fastdistill.show.layout import layout
from fastdistill.show.trace import trace
from fastdistill.show.trace_png import trace_png
from fastdistill.show.trajectory import trajectory

__all__ = ["curves_png", "layout", "trace", "trace_png", "trajectory"]
