"""Every argument of every kernel: what C may not read or write never reaches it, and what is wrong is said."""

from __future__ import annotations

import ast
import contextlib
import inspect
import os
import re
import runpy
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill
from fastdistill import kernels
from fastdistill.arguments import REAL, as_array, check_array, check_integers, check_number
from fastdistill.errors import ArgumentError, BusyError, NotFiniteError
from fastdistill.kernels import Sampler, probabilities, sample, sample_workspace, softmax, softmax_gradient
from fastdistill.kernels.boundary import const, pointer, written
from tests.kernels.calls import CALLS, Subclass, leaves, public_callables

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("part", "least"), [("arrays", 4000), ("odd", 15000), ("pairs", 40)])
def test_a_call_gives_the_right_result_or_a_typed_error(part, least):
    """arrays: each array in every form and over every other; odd: each argument as every odd object; pairs: by hypothesis."""
    program = [sys.executable, "-W", "ignore", "-m", "tests.kernels.calls", part]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[-1] == "done", (
        f"ended with {done.returncode} at {lines[-1:]}\n{done.stderr[-2000:]}"
    )
    found = [line.split("\t", 1) for line in lines[:-1]]
    assert not (wrong := [": ".join(parts) for parts in found if len(parts) != 2 or parts[1]]), "\n".join(wrong[:20])
    assert len(found) >= least


def test_every_kernel_has_a_call_and_every_array_of_it_is_given():
    """A new kernel without a row in `calls.py`, or a new array argument, fails here."""
    made = {
        name: [make for row, make in CALLS.items() if (row + ".").startswith(name + ".")] for name in public_callables()
    }
    assert not [name for name, rows in made.items() if not rows]
    for name, function in public_callables().items():
        parameters = inspect.signature(function).parameters
        arrays = {
            p
            for p, about in parameters.items()
            if re.search("ndarray|RowStatistics|LookaheadLayout", str(about.annotation))
        }
        given = {path[0] for make in made[name] for path, _ in leaves(make()[1])}
        assert arrays <= given, f"{name}: no call gives {arrays - given} as an array"
        assert set(parameters) - {"self"} <= {p for make in made[name] for p in make()[1]} | {"threads"}, name


# ---- C is given what the prototype says: `const` where it reads, `pointer` where it writes ----
def _prototypes() -> dict[str, list[str]]:
    text = runpy.run_path(str(ROOT / "csrc/build_native.py"))["declarations"]()
    return {
        name: [p.strip() for p in given.split(",") if p.strip() != "void"]
        for name, given in re.findall(r"\b(fd_\w+)\(([^()]*)\);", text)
    }


def test_const_pointers_go_where_the_prototype_says_const():
    prototypes, seen = _prototypes(), 0
    for path in sorted((ROOT / "fastdistill/kernels").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if not (
                isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in prototypes
            ):
                continue
            parameters = prototypes[call.func.attr]
            given = call.args
            stars = [place for place, value in enumerate(given) if isinstance(value, ast.Starred)]
            pairs = list(zip(given[: stars[0]] if stars else given, parameters, strict=not stars))
            if stars:  # from the end, what stands behind the last star
                pairs += list(zip(given[: stars[-1] : -1], parameters[::-1], strict=False))
            for value, parameter in pairs:
                name = value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else ""
                if name in ("const", "pointer"):
                    seen += 1
                    assert (name == "const") == parameter.startswith("const"), (
                        f"{path.name}: {call.func.attr}: {parameter}"
                    )
    assert seen > 60


# ---- the last look: what no wrapper can forget ----
def test_a_pointer_to_what_is_written_needs_memory_that_may_be_written(tmp_path):
    np.save(tmp_path / "o.npy", np.zeros(4, np.float32))
    for array in (
        np.frombuffer(bytes(16), np.float32),
        np.load(tmp_path / "o.npy", mmap_mode="r"),
        np.broadcast_to(np.float32(0), 1),
    ):
        with pytest.raises(ArgumentError, match="memory that C writes must be writable"):
            pointer(array)
        const(array)
    assert pointer(np.load(tmp_path / "o.npy", mmap_mode="c")) and pointer(None) == const(None)


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros(4, ">f4"), "byte order"),
        (np.zeros(4, object), "dtype that C knows"),
        (np.zeros(17, np.uint8)[1:].view(np.float32), "aligned"),
        (np.zeros((4, 4), np.float32).T[1:], "C-contiguous"),
        ([1.0], "NumPy array"),
    ],
)
@pytest.mark.parametrize("door", [pointer, const])
def test_no_pointer_to_what_c_would_misread(door, array, text):
    with pytest.raises(ArgumentError, match=text):
        door(array)


def test_a_boolean_is_no_number_in_a_list_either():
    for check in (
        lambda: check_integers("p", [1, True], 0, 9),
        lambda: as_array("p", [1.0, np.True_], np.float32, ("n",)),
    ):
        with pytest.raises(ArgumentError, match=r"^p must be a"):
            check()
    assert as_array("p", [True, False], bool, ("n",)).tolist() == [True, False]


def test_what_is_said_of_numbers_is_true():
    with pytest.raises(ArgumentError, match=r"must lie in 0\.\.1, got 1\.0000001$"):
        check_number("top_p", 1.0000001, 0, 1)
    with pytest.raises(ArgumentError, match=r"^p\[0\] = 1e\+39 is beyond float32$"):
        as_array("p", [1e39], np.float32, ("n",))


def test_a_read_only_output_is_refused():
    out = np.frombuffer(bytes(4), np.int32)
    with pytest.raises(ArgumentError, match=r"^out must be writable, since it is written; got a read-only array$"):
        sample(np.zeros((1, 8), np.float32), Sampler(), [0], out=out)
    assert out == 0


def test_a_bytes_object_is_not_changed():
    data, x = bytes(range(16)), softmax(np.zeros((1, 4), np.float32))
    with pytest.raises(ArgumentError, match="gradient must be writable"):
        softmax_gradient(x, np.frombuffer(data, np.float32).reshape(1, 4))
    assert data == bytes(range(16))


def test_probabilities_may_take_the_place_of_their_logits():
    logits, sampler = np.random.default_rng(0).normal(size=(5, 70)).astype(np.float32), Sampler(0.7, top_p=0.9)
    want = probabilities(logits, sampler)
    assert probabilities(logits, sampler, out=logits, threads=3) is logits
    np.testing.assert_array_equal(logits, want)
    with pytest.raises(ArgumentError, match="out must not overlap logits"):
        probabilities(logits[:4], sampler, out=logits[1:])
    memory = np.zeros(1 << 20, np.uint8)
    with pytest.raises(ArgumentError, match=r"workspace must not overlap logits|out must not overlap workspace"):
        logits = memory[: 5 * 280].view(np.float32).reshape(5, 70)
        probabilities(logits, sampler, out=logits, workspace=memory)


# ---- memory that a call writes is its own while it lasts ----
def test_what_one_call_writes_another_may_not():
    logits, workspace, out = np.zeros((2, 40), np.float32), sample_workspace(4, 40, 4), np.zeros(2, np.int32)
    half = len(workspace) // 2
    with written({"workspace": workspace[:half]}, {}):
        with pytest.raises(
            BusyError, match=r"^workspace is being written by another call: give each thread memory of its own$"
        ):
            sample(logits, Sampler(), [0, 1], workspace=workspace)
        assert sample(logits, Sampler(), [0, 1], workspace=workspace[half:], out=out) is out
        with written({"out": out}, {}), pytest.raises(BusyError, match="out is being written"):
            sample(logits, Sampler(), [0, 1], workspace=workspace[half:], out=out)
    assert sample(logits, Sampler(), [0, 1], workspace=workspace, out=out) is out


def test_threads_with_memory_of_their_own_never_meet():
    """Their calls enter and leave at any moment: what is being written is counted without a race."""
    before, failures = sys.getswitchinterval(), []

    def work() -> None:
        out = np.zeros(4, np.float32)
        try:
            for _ in range(2000):
                with written({"out": out}, {}):
                    pass
        except RuntimeError as error:
            failures.append(error)

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not failures


def test_threads_with_one_workspace_get_their_own_tokens_or_a_busy_error():
    random = np.random.default_rng(0)
    logits = [random.normal(size=(4, 5000)).astype(np.float32) for _ in range(4)]
    sampler, positions, workspace = (
        Sampler(1.0, top_p=0.9, seed=3),
        np.arange(4, dtype=np.int32),
        sample_workspace(4, 5000),
    )
    want, failures, busy = [sample(z, sampler, positions) for z in logits], [], []

    def work(which: int) -> None:
        for _ in range(50):
            try:
                if not np.array_equal(sample(logits[which], sampler, positions, workspace=workspace), want[which]):
                    failures.append(which)
            except BusyError:
                busy.append(which)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and len(busy) < 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_does_not_inherit_what_other_threads_were_writing():
    workspace = sample_workspace(1, 40)
    with written({"workspace": workspace}, {}):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                sample(np.zeros((1, 40), np.float32), Sampler(), [0], workspace=workspace)
                os._exit(0)
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---- what is converted, and what is said of the rest ----
@pytest.mark.parametrize(
    ("array", "dtype", "shape", "text"),
    [
        (np.zeros((2, 3)), np.float32, ("rows", "vocab"), "z must have dtype float32, got float64: pass z.astype(np.float32)"),
        (np.zeros(3, np.float16), REAL, ("n",), "z must have dtype float32 or float64, got float16: pass z.astype(np.float32)"),
        (np.zeros(3, ">f4"), np.float32, ("n",), "z must have this machine's byte order, got big-endian float32: pass z.astype(np.float32)"),
        (np.zeros(3, object), np.float32, ("n",), "z must have dtype float32, got object"),
        ([[1.0]], np.float32, ("rows", "vocab"), "z must be a NumPy array of float32, got list: pass np.asarray(z, np.float32)"),
        ("abc", np.float32, ("n",), "z must be a NumPy array of float32, got str"),
        (np.ma.zeros(3), np.float64, ("n",), "z must not be a masked array: its mask would be lost: pass z.filled(value)"),
        (np.zeros(3).view(Subclass), np.float64, ("n",), "z must be a NumPy array of float64, got Subclass: pass np.asarray(z)"),
        (np.zeros(3), np.float64, ("rows", "vocab"), "z must have shape (rows, vocab), got (3,)"),
        (np.zeros((2, 3)), np.float64, ("rows", 4), "z must have shape (rows, 4), got (2, 3)"),
        (np.zeros(3), np.float64, (..., "n", "d"), "z must have shape (..., n, d), got (3,)"),
        (np.zeros((3, 2)).T, np.float64, ("n", "d"), "z must be C-contiguous: pass np.ascontiguousarray(z)"),
        (np.zeros(17, np.uint8)[1:].view(np.float64), np.float64, ("n",), "z must begin on a multiple of 8 bytes: pass z.copy()"),
    ],
)  # fmt: skip
def test_a_big_array_is_taken_as_it_is_or_the_fix_is_named(array, dtype, shape, text):
    with pytest.raises(ArgumentError) as caught:
        check_array("z", array, dtype, shape)
    assert str(caught.value) == text


@pytest.mark.parametrize("value", [
    [1, -2, 3], (1, -2, 3), np.array([1, -2, 3]), np.array([1, -2, 3], np.int8), np.array([1, -2, 3], ">i8"), np.array([1, 0, -2, 0, 3])[::2],
])  # fmt: skip
def test_a_small_array_is_converted_where_it_stays_what_it_is(value):
    array = as_array("z", value, np.int32, ("n",))
    assert array.dtype == np.int32 and array.tolist() == [1, -2, 3] and array.flags.carray


def test_a_small_array_that_needs_no_conversion_is_not_copied():
    array = np.arange(3, dtype=np.int32)
    assert as_array("z", array, np.int32, ("n",)) is array


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        ([1, 2**31], np.int32, "z[1] must lie in -2147483648..2147483647, got 2147483648"),
        ([[1], [-1]], np.uint32, "z[1, 0] must lie in 0..4294967295, got -1"),
        ([1.0], np.int32, "z must hold integers, got [1.0]"),
        ([True], np.int32, "z must hold integers, got [True]"),
        ([1], np.bool_, "z must hold True or False, got [1]"),
        ([0.5, 0.1], np.float32, "z[1] = 0.1 would be rounded to float32: pass np.asarray(z, np.float32)"),
        ([2**24 + 1], np.float32, "z[0] = 16777217 would be rounded to float32: pass np.asarray(z, np.float32)"),
        ([[1], [1, 2]], np.int32, "z must be a NumPy array or list of int32, got [[1], [1, 2]]"),
        ([np.ma.array([1], mask=[True])], np.int32, "z must not be a masked array: its mask would be lost: pass z.filled(value)"),
        (np.array([2**63], np.uint64), np.int64, "z[0] must lie in -9223372036854775808..9223372036854775807, got 9223372036854775808"),
    ],
)  # fmt: skip
def test_a_small_array_that_would_change_is_refused(value, dtype, text):
    with pytest.raises(ArgumentError) as caught:
        as_array("z", value, dtype, (...,))
    assert str(caught.value) == text


def test_small_floats_keep_what_is_not_finite():
    np.testing.assert_array_equal(
        as_array("z", [np.nan, -np.inf, 0.5], np.float32, (3,)), np.float32([np.nan, -np.inf, 0.5])
    )


@pytest.mark.parametrize("values", [np.ma.array([1, 2], mask=[False, True]), [np.ma.masked, 1]])
def test_lists_of_integers_hold_no_masks(values):
    with pytest.raises(ArgumentError, match="masked"):
        check_integers("tokens", values, 0, 9)


def test_a_workspace_that_no_machine_has_is_refused():
    with pytest.raises(ArgumentError, match="nodes times vocab"):
        kernels.verify_tree_workspace("traversal", 2**31 - 1, 2**31 - 1)


def test_a_function_of_logits_may_not_return_a_masked_array():
    session = fastdistill.from_callable(lambda tokens: np.ma.zeros((len(tokens), 5)), 5)
    with pytest.raises(ArgumentError, match="masked array: its mask would be lost"):
        session.forward([1, 2])


def test_numpys_own_integers_and_lists_draw_the_same_tokens():
    logits, sampler = (
        np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32),
        Sampler(1.0, repetition_penalty=1.2),
    )
    want = sample(logits, sampler, np.arange(3, dtype=np.int32), seen=[np.arange(2, dtype=np.int32)] * 3)
    np.testing.assert_array_equal(sample(logits, sampler, np.arange(3), seen=[[0, 1]] * 3), want)


def test_a_weight_that_is_no_number_is_refused():
    for weight in (np.nan, np.inf, "1", None, np.ones(3)):
        with pytest.raises(ArgumentError, match=r"^weight must"):
            softmax_gradient(np.full((1, 2), 0.5), np.zeros((1, 2)), weight=weight)


# ---- a row at fault is named, and why ----
def _linear(x):
    return kernels.linear(x, "q8", np.ones((2, 64), np.int8), np.ones((2, 2), np.float16))


def _expand(x):
    return kernels.expand_tree(x, np.zeros(len(x), np.float32), 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("kernel", "dtype", "name", "bans"),
    [
        (kernels.row_statistics, np.float32, "row_statistics", True),
        (softmax, np.float32, "softmax", True),
        (softmax, np.float64, "softmax", True),
        (_expand, np.float32, "expand_tree", True),
        (kernels.quantize_rows, np.float32, "quantize_rows", False),
        (_linear, np.float32, "linear", False),
    ],
)
@given(rows=st.integers(1, 5), data=st.data())
@settings(max_examples=15)
def test_the_row_is_named_and_why(kernel, dtype, name, bans, bad, rows, data):
    """The first of them; one -inf alone is a ban where bans are."""
    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, 63))
    x = np.zeros((rows, 64), dtype)
    x[row:, column] = bad
    if bad == -np.inf and bans:
        kernel(x)
        x[row:] = bad
        why = "every token is banned: it holds nothing but -inf"
    else:
        why = rf"a row holds a NaN or an infinity: {bad} in column {column}"
    with pytest.raises(NotFiniteError, match=rf"^{name}: row {row}: {why}$"):
        kernel(x)


def test_rows_of_several_axes_are_named_by_all_of_them():
    z = np.zeros((2, 3, 8), np.float32)
    z[1, 2] = -np.inf
    for kernel in (kernels.row_statistics, softmax):
        with pytest.raises(NotFiniteError, match=rf"^{kernel.__name__}: row \(1, 2\): every token is banned"):
            kernel(z)
        with pytest.raises(NotFiniteError, match=rf"^{kernel.__name__}: every token is banned"):
            kernel(z[1, 2])
