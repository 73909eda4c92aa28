"""Verification of a tree of 64 nodes over a vocabulary of 32000, in cache as far as it fits, one thread.

`inside C` calls with pointers that are already made; `checked` is what `kernels.verify_tree` takes.  `read` is the time of finding
the largest entry, NumPy's fastest pass, of each row that the walk came to: the target's where it drew or refused, the drafts' where
it refused.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bench.lib.report import Report
from bench.lib.timing import Timer, measure
from fastdistill.kernels import isa, set_isa, verify_tree, verify_tree_workspace
from fastdistill.kernels.boundary import ffi, lib, pointer
from fastdistill.kernels.verify.verify_tree import Verified
from fastdistill.reference.verify.verify_tree import verify_tree as reference_verify_tree

NODES, VOCAB = 64, 32000
CODES = {
    "coupled": lib.FD_COUPLED,
    "rejection": lib.FD_REJECTION,
    "traversal": lib.FD_TRAVERSAL,
    "block": lib.FD_TRAVERSAL,
    "typical": lib.FD_TYPICAL,
}


def laws(generator: np.random.Generator, rows: int) -> np.ndarray:
    p = np.exp(generator.normal(0, 3, (rows, VOCAB)))
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


def cases(generator: np.random.Generator) -> dict[str, dict[str, Any]]:
    """Arguments of each rule: drafts near the target, on a tree of three children a node, or a chain."""
    chain = np.arange(-1, NODES - 1, dtype=np.int32)
    tree = ((np.arange(NODES) - 1) // 3).astype(np.int32)
    tree[0] = -1
    target, other = laws(generator, NODES), laws(generator, NODES)
    drafts = (0.7 * target.astype(np.float64) + 0.3 * other).astype(np.float32)

    def drawn(parents: np.ndarray) -> dict[str, Any]:
        cumulated = drafts.cumsum(axis=1, dtype=np.float64)
        tokens = [
            int(np.searchsorted(cumulated[p], generator.random() * cumulated[p, -1])) for p in np.maximum(parents, 0)
        ]
        uniforms = generator.random(NODES)
        return {"parents": parents, "tokens": np.array(tokens, np.int32), "target": target, "drafts": drafts,
                "draft_rows": parents, "uniforms": uniforms}  # fmt: skip

    def coupled() -> dict[str, Any]:
        return {"parents": tree, "tokens": generator.integers(0, 3, NODES).astype(np.int32),
                "target": generator.integers(0, 3, NODES).astype(np.int32)}  # fmt: skip

    refused = drawn(chain) | {"uniforms": np.full(NODES, np.nextafter(1, 0))}
    accepted = drawn(chain) | {"uniforms": np.full(NODES, 1e-9)}
    typical = {name: value for name, value in drawn(tree).items() if not name.startswith("draft")}
    return {
        "coupled, tree": {"rule": "coupled"} | coupled(),
        "rejection, chain, all kept": {"rule": "rejection"} | accepted,
        "rejection, chain, refused": {"rule": "rejection"} | refused,
        "rejection, tree": {"rule": "rejection"} | drawn(tree),
        "rejection, tree, none put back": {"rule": "rejection", "replacement": False} | drawn(tree),
        "block, chain": {"rule": "block"} | drawn(chain),
        "traversal, tree": {"rule": "traversal"} | drawn(tree),
        "typical, tree": {"rule": "typical"} | typical,
    }


def inside(arguments: dict[str, Any], found: Verified, workspace: np.ndarray | None) -> Callable[[], int]:
    """A call of the C entry alone."""
    rule = arguments["rule"]
    settings = ffi.new("struct fd_verifier *")
    settings.rule, settings.chain, settings.replacement = (
        CODES[rule],
        rule == "block",
        arguments.get("replacement", True),
    )
    settings.scale = settings.exponent = 1
    settings.epsilon, settings.delta = 0.09, 0.3
    target = pointer(arguments["target"])
    drawn, rows = (target, ffi.NULL) if rule == "coupled" else (ffi.NULL, target)
    where, offsets = ffi.new("int64_t[2]"), np.array([0, NODES], np.int64)
    names = ("drafts", "draft_rows", "uniforms")
    call = partial(
        lib.fd_verify_tree, 1, VOCAB, NODES, pointer(offsets), pointer(arguments["parents"]), pointer(arguments["tokens"]),
        drawn, rows, *(pointer(arguments.get(name)) for name in names), settings, *map(pointer, found), pointer(workspace), where,
    )  # fmt: skip
    call()
    return call


def touched(arguments: dict[str, Any], found: Verified) -> list[np.ndarray]:
    """The rows that are read whole: see the rules in csrc/kernels/verify/verify_tree.c."""
    if arguments["rule"] == "coupled":
        return []
    last = int(found.path[found.accepted[0]])
    refused = np.flatnonzero(found.verdicts < 0)
    from_target = {last, *arguments["parents"][refused].tolist()}
    rows = [arguments["target"][row] for row in sorted(from_target)]
    if "drafts" in arguments:
        rows += [arguments["drafts"][row] for row in sorted(set(arguments["draft_rows"][refused].tolist()))]
    return rows


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    before = isa()
    for level in options.levels:
        set_isa(level)
        for case, arguments in cases(np.random.default_rng(0)).items():
            expected = reference_verify_tree(**arguments)
            rule = arguments["rule"]
            workspace = None if rule == "coupled" else verify_tree_workspace(rule, NODES, VOCAB)
            kernel = partial(verify_tree, **arguments, workspace=workspace)
            found = kernel()
            for field in Verified._fields:
                np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
            rows = touched(arguments, found)
            timers = {
                "inside C": Timer(inside(arguments, found, workspace)),
                "checked": Timer(kernel),
                "read": Timer(lambda rows=rows: [row.max() for row in rows]),  # type: ignore[misc]
            }
            seconds = measure(timers, options.repetitions)
            cells = {f"{name}, us": taken * 1e6 for name, taken in seconds.items() if name != "read" or rows}
            if rows:
                cells["inside C / read"] = seconds["inside C"] / seconds["read"]
            report.row(case=case, level=level, accepted=int(found.accepted[0]), rows=len(rows), **cells)
    set_isa(before)
    return report
