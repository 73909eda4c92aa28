"""Pairs of low rank beside frozen matrices (LoRA: Hu et al. 2022): a plan with more linears, in which nothing else is new.

y = W x + B (alpha / rank) A x,    A (rank, inputs), B (outputs, rank) zeros at first
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastdistill import files
from fastdistill.arguments import check_integer, check_number
from fastdistill.checkpoint import Tensor
from fastdistill.checkpoint.safetensors_file import Stored, write_safetensors
from fastdistill.errors import ArgumentError, CheckpointError, UnsupportedError
from fastdistill.models.plan import Op, Plan, Weight
from fastdistill.models.source import stored
from fastdistill.ops import OPS
from fastdistill.train.parameters import Parameter
from fastdistill.train.patterns import matching

MOST_RANK = 1 << 12


@dataclass(frozen=True)
class Pair:
    """What stands beside a matrix.

    Attributes
    ----------
    matrix : str
        its name
    a : str
        the name of A (rank, inputs)
    b : str
        the name of B (outputs, rank)
    """

    matrix: str
    a: str
    b: str


@dataclass(frozen=True)
class LoRA:
    """A plan with pairs of low rank beside its linears.

    Attributes
    ----------
    plan : Plan
        the model's, with the pairs
    pairs : tuple[Pair, ...]
        in the plan's order
    rank : int
        rows of each A, columns of each B
    alpha : float
        pairs count alpha / rank times
    """

    plan: Plan
    pairs: tuple[Pair, ...]
    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def trained(self) -> list[str]:
        """Names of the weights that are trained: all A and B."""
        return [name for pair in self.pairs for name in (pair.a, pair.b)]

    def tensors(self, seed: int = 0) -> dict[str, Tensor]:
        """What training begins with: A uniform in +-1 / sqrt(inputs), each of its own seed, and B zero, so that the model is as it was."""
        made = {}
        for number, pair in enumerate(self.pairs):
            a, b = (self.plan.weights[name].shape for name in (pair.a, pair.b))
            drawn = np.random.default_rng((seed, number)).uniform(-1, 1, a) / np.sqrt(a[1])
            made[pair.a] = Tensor(pair.a, "f32", a, drawn.astype(np.float32))
            made[pair.b] = Tensor(pair.b, "f32", b, np.zeros(b, np.float32))
        return made

    def merged(self, parameters: Mapping[str, Parameter], tensors: Mapping[str, Tensor]) -> dict[str, Merged]:
        """The matrices with their pairs added, by name; each is computed when it is asked for.

        Parameters
        ----------
        parameters : Mapping[str, Parameter]
            with all A and B
        tensors : Mapping[str, Tensor]
            of the model, by the names they are stored under
        """
        return {pair.matrix: Merged(self, pair, parameters, tensors) for pair in self.pairs}


@dataclass(frozen=True, eq=False)
class Merged:
    """One matrix and its pair, as one matrix.

    Attributes
    ----------
    lora : LoRA
        that the pair is of
    pair : Pair
        whose names these are
    parameters : Mapping[str, Parameter]
        with its A and B
    tensors : Mapping[str, Tensor]
        of the model, by the names they are stored under
    """

    lora: LoRA
    pair: Pair
    parameters: Mapping[str, Parameter]
    tensors: Mapping[str, Tensor]

    def to_array(self) -> np.ndarray:
        """W + alpha / rank B A, float32 (outputs, inputs), summed in float64."""
        a, b = (self.parameters[name].to_array().astype(np.float64) for name in (self.pair.a, self.pair.b))
        matrix = self.lora.plan.weights[self.pair.matrix].source.tensor(self.tensors).to_float32()
        return (matrix + self.lora.scale * (b @ a)).astype(np.float32)


def with_lora(plan: Plan, rank: int, alpha: float | None = None, targets: Iterable[str] | None = None) -> LoRA:
    """Put a pair of low rank beside each linear whose matrix is named.

    Parameters
    ----------
    plan : Plan
    rank : int
    alpha : float, optional
        the pairs count alpha / rank times; None: twice the rank
    targets : Iterable[str], optional
        patterns of names of matrices, such as "*.q_proj.*"; None: all linears of layers but routers

    Raises
    ------
    ArgumentError
        for a pattern that no linear's matrix is called by
    """
    rank = check_integer("rank", rank, 1, MOST_RANK)
    alpha = 2.0 * rank if alpha is None else check_number("alpha", alpha, 1e-9, 1e9)
    inside = [op for op in plan.ops if op.kind == "linear" and op.segment in plan.layers]
    names = list(dict.fromkeys(op.weights[0] for op in inside if not plan.weights[op.weights[0]].exact))
    if targets is not None and names:
        names = matching("targets", targets, names, "linears of layers")
    if not names:
        raise ArgumentError(f"this model ({plan.architecture}) has no linears in layers for pairs to stand beside")
    pairs = {name: _pair(name) for name in names}
    ops, widths, weights, moved = list[Op](), [*plan.widths], dict(plan.weights), dict[int, int]()

    def add(like: Op, kind: str, *inputs: int, of: tuple[str, ...] = (), **constants: Any) -> int:
        shapes = [weights[name].shape for name in of]
        widths.append(OPS[kind].width([widths[value] for value in inputs], shapes, constants))
        ops.append(Op(kind, inputs, len(widths) - 1, of, constants, like.segment))
        return len(widths) - 1

    beside = list[tuple[Op, Pair]]()  # linears that read one value, and their pairs
    for op, after in zip(plan.ops, (*plan.ops[1:], None), strict=True):
        op = _reading(op, moved)
        ops.append(op)
        pair = pairs.get(op.weights[0]) if op.kind == "linear" else None
        if pair is not None:
            outputs, inputs = plan.weights[pair.matrix].shape
            for name, shape in ((pair.a, (rank, inputs)), (pair.b, (outputs, rank))):
                weights[name] = Weight(shape, True, stored(name, shape), exact=True)
            beside.append((op, pair))
        if after is not None and after.kind == "linear" and _reading(after, moved).inputs == op.inputs:
            continue
        low = [
            add(each, "linear", *each.inputs, of=(pair.a,)) for each, pair in beside
        ]  # as neighbours they run as one
        for (each, pair), x in zip(beside, low, strict=True):
            y = add(each, "linear", add(each, "scale", x, factor=alpha / rank), of=(pair.b,))
            moved[each.output] = add(each, "add", each.output, y)
        beside.clear()

    def now(value: int) -> int:
        return moved.get(value, value)

    changed = replace(
        plan,
        ops=tuple(ops),
        widths=tuple(widths),
        weights=weights,
        taps={name: now(value) for name, value in plan.taps.items()},
        boundaries=tuple(map(now, plan.boundaries)),
        outputs={name: now(value) for name, value in plan.outputs.items()},
    )
    return LoRA(changed, tuple(pairs.values()), rank, alpha)


def save_adapter(lora: LoRA, parameters: Mapping[str, Parameter], base: str, folder: str | os.PathLike[str]) -> None:
    """Write the pairs as a folder that PEFT reads: adapter_config.json and adapter_model.safetensors.

    Parameters
    ----------
    lora : LoRA
    parameters : Mapping[str, Parameter]
        with all A and B
    base : str
        the name or folder of the model that they belong to
    folder : str | os.PathLike[str]
        the one to make, or to replace

    Raises
    ------
    UnsupportedError
        for a matrix that the model's files hold otherwise: as a part of another, or transposed
    CheckpointError
        where it cannot be written; what was there stays
    """
    for pair in lora.pairs:
        if lora.plan.weights[pair.matrix].source.stored != {pair.matrix: lora.plan.weights[pair.matrix].shape}:
            raise UnsupportedError(
                f"{pair.matrix}: is no tensor of its own in the model's files, as PEFT wants it; merge the pairs"
            )
    paired = [_module(pair.matrix) for pair in lora.pairs]
    without = {_last(module) for module in map(_module, lora.plan.stored) if module not in paired}
    modules = sorted({module if _last(module) in without else _last(module) for module in paired})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": lora.rank, "lora_alpha": lora.alpha,
        "target_modules": modules, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
    }  # fmt: skip
    arrays = {f"base_model.model.{name}": Stored("F32", parameters[name].to_array()) for name in lora.trained}
    target = Path(os.path.realpath(folder))
    try:
        with files.work_folder(target) as work:
            made = work / "adapter"
            made.mkdir()
            (made / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            write_safetensors(made / "adapter_model.safetensors", arrays)
            files.replace(target, made, work)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written: {error}") from error


def _pair(matrix: str) -> Pair:
    module = _module(matrix)
    return Pair(matrix, f"{module}.lora_A.weight", f"{module}.lora_B.weight")


def _module(weight: str) -> str:
    return weight.removesuffix(".weight")


def _last(module: str) -> str:
    return module.rpartition(".")[2]


def _reading(op: Op, moved: Mapping[int, int]) -> Op:
    return replace(op, inputs=tuple(moved.get(value, value) for value in op.inputs))
