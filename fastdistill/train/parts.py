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
    hidden, logits = plan.outputs["hidden"], plan.outputs["logits"]
    b = Builder()
    moved = {hidden: b.op("given", width=plan.widths[hidden])}
    for op in plan.ops:
        if not op.inputs or not moved.keys() >= {*op.inputs}:
            continue
        weights = {name: plan.weights[name].shape for name in op.weights}
        kind, constants = ("linear", {}) if op.kind == "head" else (op.kind, op.constants)
        x = b.op(kind, *(moved[value] for value in op.inputs), weights=weights, **constants)
        if op.output == logits and op.constants.get("softcap"):
            x = b.op("softcap", x, softcap=op.constants["softcap"])
        moved[op.output] = x
    x = moved[logits]
    facts: dict[str, Any] = {
        name: getattr(plan, name) for name in ("vocab_size", "hidden_size", "max_positions", "architecture")
    }
    made = b.plan(x, {ROWS: x}, {}, **facts)
    return replace(made, weights={name: plan.weights[name] for name in made.weights})
