"""Rows times a weight matrix in every format: what a forward of m tokens spends nearly all of its time on."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from functools import partial

import numpy as np

from bench.lib.levels import compare
from bench.lib.machine import bandwidth
from bench.lib.report import Report
from fastdistill.checkpoint import Tensor, quantize_tensor
from fastdistill.kernels import PackedWeight
from fastdistill.reference.forward.linear import linear as reference_linear

CHECKED = slice(0, 64)  # outputs: the reference is slow
MOST_SCALAR_ROWS = 8
FORMATS = ("q4", "q8", "bf16", "f16", "f32")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--shape",
        default="6144x2048",
        metavar="OUTxIN",
        help="of the matrix (default: %(default)s, beyond most caches)",
    )
    parser.add_argument("--formats", default=",".join(FORMATS), help="default: %(default)s")
    parser.add_argument("--rows", default="1,4,8,16,32,512", help="rows of x (default: %(default)s)")


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    outputs, inputs = map(int, options.shape.split("x"))
    weights = np.random.default_rng(0).standard_normal((outputs, inputs), np.float32)
    memory = bandwidth(max(options.threads))
    for format in options.formats.split(","):
        tensor = Tensor("weight", "f32", (outputs, inputs), weights)
        add_format(report, options, tensor if format == "f32" else quantize_tensor(tensor, format), memory)
    report.note(
        f"bandwidth {memory * 1e-9:.1f} GB/s; NumPy multiplies the dequantised float32 matrix with its own threads"
    )
    if "scalar" in options.levels:
        report.skip("scalar", f"beyond {MOST_SCALAR_ROWS} rows: it is there for meaning, and takes minutes")
    return report


def add_format(report: Report, options: Namespace, tensor: Tensor, memory: float) -> None:
    """One matrix, and every number of rows."""
    outputs, inputs = tensor.shape
    packed = PackedWeight(tensor.format, tensor.data, tensor.scale, tensor.minimum, inputs=inputs)
    exact = tensor.to_float32()
    part = tensor.rows(CHECKED)
    for rows in map(int, options.rows.split(",")):
        x = np.random.default_rng(rows).standard_normal((rows, inputs), np.float32)
        expected = reference_linear(x, tensor.format, part.data, part.scale, part.minimum)
        tolerance = roundings(tensor.format, inputs) * 2.0**-24 * largest_sums(x, part)
        levels = [level for level in options.levels if level != "scalar" or rows <= MOST_SCALAR_ROWS]
        compare(
            report,
            Namespace(**vars(options) | {"levels": levels}),
            f"{tensor.format} {outputs} x {inputs}, m = {rows}",
            kernel=partial(packed.multiply, x),
            check=partial(check, expected, tolerance),
            numpy=partial(np.matmul, x, exact.T),
            bandwidth=memory,
            moved=packed.nbytes,
            operations=2 * rows * outputs * inputs,
        )


def roundings(format: str, inputs: int) -> int:
    """Of one output: one a term and two beside; of q8 and q4 four a block and four beside."""
    return 4 * -(-inputs // 32) + 4 if format in ("q8", "q4") else inputs + 2


def largest_sums(x: np.ndarray, tensor: Tensor) -> np.ndarray:
    """The sum of the magnitudes of all terms, (rows, outputs): in q4 those of codes and minimum apart."""
    if tensor.format == "q4":
        reach = np.repeat(
            15 * np.abs(tensor.scale.astype(np.float32)) + np.abs(tensor.minimum.astype(np.float32)), 32, axis=1
        )
        return np.abs(x) @ reach[:, : x.shape[1]].T
    return np.abs(x) @ np.abs(tensor.to_float32()).T


def check(expected: np.ndarray, tolerance: np.ndarray, found: np.ndarray) -> None:
    assert (np.abs(found[:, CHECKED] - expected) <= tolerance).all(), "too far from the reference"
