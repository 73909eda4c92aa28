"""Checked functions over NumPy arrays, each with a reference of the same name in `fastdistill.reference`."""

from .exp_log import exp_log
from .isa import isa, isa_levels, set_isa
from .row_statistics import RowStatistics, row_statistics
from .threads import default_threads

__all__ = ["RowStatistics", "default_threads", "exp_log", "isa", "isa_levels", "row_statistics", "set_isa"]
