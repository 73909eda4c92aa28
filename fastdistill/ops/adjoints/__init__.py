"""How gradients flow back through each op, and the ops that this takes: a file for each of `fastdistill.ops`."""

from fastdistill.ops.adjoints import attention, elementwise, linear

KINDS = (*linear.KINDS, *elementwise.KINDS, *attention.KINDS)
