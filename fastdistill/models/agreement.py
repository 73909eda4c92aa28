"""The plan of an open folder: config and tensors held against each other, nothing chosen in silence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase

import numpy as np

from fastdistill.checkpoint import Checkpoint, Tensor, check_tensors
from fastdistill.errors import CheckpointError
from fastdistill.messages import listed, warn
from fastdistill.models.families import plan_for
from fastdistill.models.plan import Ignored, Plan

_SPELLINGS = {"gamma": "weight", "beta": "bias"}  # of norms, in BERT's first files
_CHUNK = 1 << 20  # values compared at once
_CASTS = {
    "f16": (2.0**-11, 2.0**-25),
    "bf16": (2.0**-8, 0.0),
}  # how far off: of the value, and at least; bf16 may be cut


def plan_of(checkpoint: Checkpoint) -> Plan:
    """The plan of an open folder: of its config, and of tensors that agree with it.

    Files of a model without its head call `layers.0` what the plan calls `model.layers.0`: their tensors get its names here.
    What a checkpoint may lack is filled in, or the plan is another one. A tensor that the plan ignores must equal what stands in its place. A head that differs from the embedding it is
    said to be is used, with a warning; rotary frequencies that the config does not give are not.

    Parameters
    ----------
    checkpoint : Checkpoint
        an open folder

    Raises
    ------
    CheckpointError
        for tensors that do not agree
    UnsupportedError
        for one in a format that it cannot be used in, and what `plan_for` raises
    """
    config, plan = checkpoint.config, plan_for(checkpoint.config)
    tensors = _rooted(checkpoint.tensors, plan)
    lacking = {name: without for name, without in plan.optional.items() if name not in tensors}
    for name, without in lacking.items():
        if isinstance(without, Mapping):
            config = config.changed(without)
        else:
            shape = plan.stored[name]
            tensors[name] = Tensor(name, "f32", shape, np.full(shape, without, np.float32))
    checkpoint.tensors = tensors
    plan = plan_for(config) if lacking else plan
    before = config
    for ignored, names in _differing(plan, checkpoint.tensors).items():
        found = f"{checkpoint.folder}: {ignored.reason}, but it holds another {listed(names)}"
        if ignored.instead is None:
            raise CheckpointError(found)
        if ignored.instead:
            warn(f"{found}, which is used, as if config.json said {json.dumps(ignored.instead)}")
            config = config.changed(ignored.instead)
        else:
            warn(f"{found}, which is not used")
    plan = plan if config is before else plan_for(config)
    check_tensors(checkpoint.tensors, plan.stored, plan.ignored)
    plan.formats({name: tensor.format for name, tensor in checkpoint.tensors.items()})
    return plan


def _rooted(tensors: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """The tensors by the names that the plan has for them: perhaps their own behind the name of the whole."""
    roots = dict.fromkeys(name.partition(".")[0] for name in plan.stored)

    def known(name: str) -> bool:
        return name in plan.stored or any(fnmatchcase(name, pattern) for pattern in plan.ignored)

    def rooted(name: str) -> str:
        module, _, last = name.rpartition(".")
        if last in _SPELLINGS and not known(name):
            name = f"{module}.{_SPELLINGS[last]}"
        names = [name] if known(name) else [f"{root}.{name}" for root in roots]
        return next((each for each in names if known(each) and (each == name or each not in tensors)), name)

    return {rooted(name): tensor for name, tensor in tensors.items()}


def _differing(plan: Plan, tensors: Mapping[str, Tensor]) -> dict[Ignored, list[str]]:
    """What the plan ignores though it differs from what stands in its place: the names of those tensors.

    A matrix costs one reading of both, up to where they first differ; most files hold no tensor that is ignored.
    """
    found: dict[Ignored, list[str]] = {}
    for name, tensor in tensors.items():
        for pattern, ignored in plan.ignored.items():
            if name not in plan.stored and fnmatchcase(name, pattern) and not _agrees(tensor, ignored, tensors):
                found.setdefault(ignored, []).append(name)
    return found


def _agrees(tensor: Tensor, ignored: Ignored, tensors: Mapping[str, Tensor]) -> bool:
    if ignored.equals == ():
        return True
    if isinstance(ignored.equals, str):
        other = tensors.get(ignored.equals)
        return other is None or _same(tensor, other)  # what is missing is reported as that
    values = tensor.to_float32()
    return any(values.shape == wanted.shape and _close(tensor.format, values, wanted) for wanted in ignored.equals)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether all values are equal, whatever the formats; bits where they can be compared."""
    if one.shape != other.shape:
        return False
    for rows in one.chunks(_CHUNK):
        left, right = one.rows(rows), other.rows(rows)
        if left.format == right.format and all(
            np.array_equal(part.view(f"u{part.itemsize}"), right.parts[name].view(f"u{part.itemsize}"))
            for name, part in left.parts.items()
        ):
            continue
        if not np.array_equal(left.to_float32(), right.to_float32()):
            return False
    return True


def _close(format: str, values: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether values computed in float32 elsewhere, then stored in a format, are those wanted.

    The exponent of theta^(-2 i / d) is rounded to 2^-24 of itself, so a frequency is off by ln theta times that, at
    most 28 for the largest theta; the power and the division add a few more. Casting adds to that.
    """
    half_unit, smallest = _CASTS.get(format, (0.0, 0.0))
    return bool((np.abs(values - wanted) <= np.abs(wanted) * (half_unit + 32 * 2.0**-24) + smallest).all())
