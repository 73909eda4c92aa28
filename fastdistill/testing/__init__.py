"""Whether fastdistill computes what it promises, on this machine and in functions of others.

`selftest` checks every kernel on every level, without any package for tests. `fastdistill.testing.strategies` has the cases of the
kernels for hypothesis, and `fastdistill.testing.cases` a file for each with its comparison: to test a function of one's own.
"""

from fastdistill.testing.report import Difference, ModelSpeed, Report
from fastdistill.testing.run import selftest

__all__ = ["Difference", "ModelSpeed", "Report", "selftest"]
