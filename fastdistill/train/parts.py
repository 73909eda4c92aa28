"""A model in two plans: what leads to the rows that the head reads, and the head.

Logits of all rows would take most of the memory that training takes; so the head sees some rows at a time, forward and
in reverse, while the layers see all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastdistill.errors import UnsupportedError
from fastdistill.models.builder import Builder
from fastdistill.models.plan import Plan

ROWS = "rows"  # the output of a head: its logits, as values like any other


def head_of(plan: Plan) -> Plan:
    """The head alone, over rows (n, hidden_size) given as inputs: `ROWS` (n, vocab_size).

    Raises
    ------
    UnsupportedError
        for a plan without one
    """
    if "logits" not in plan.outputs or "hidden" not in plan.outputs:
        raise UnsupportedError(f"this model ({plan.architecture}) has no head that could be trained")
    b, hidden = Builder(), plan.outputs["hidden"]
    x = b.op("given", width=plan.widths[hidden])
    made = {hidden: x}
    for op in plan.ops:
        if op.output == hidden or not op.inputs or not made.keys() >= set(op.inputs):
            continue
        inputs, weights = (made[value] for value in op.inputs), {name: plan.weights[name].shape for name in op.weights}
        if op.kind != "head":
            made[op.output] = b.op(op.kind, *inputs, weights=weights, **op.constants)
            continue
        x = b.op("linear", *inputs, weights=weights)
        softcap = op.constants.get("softcap")
        if softcap:
            x = b.op("softcap", x, softcap=softcap)
    facts: dict[str, Any] = {
        name: getattr(plan, name) for name in ("vocab_size", "hidden_size", "max_positions", "architecture")
    }
    head = b.plan(x, {ROWS: x}, {}, **facts)
    return replace(head, weights={name: plan.weights[name] for name in head.weights})
