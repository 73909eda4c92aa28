"""How gradients flow back through each op, and the ops that this takes: a file for each of `fastdistill.ops`."""

from fastdistill.ops.adjoints import activation, attention, elementwise, experts, linear, norm

KINDS = (*linear.KINDS, *elementwise.KINDS, *norm.KINDS, *activation.KINDS, *attention.KINDS, *experts.KINDS)
