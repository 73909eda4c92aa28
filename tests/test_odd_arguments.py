"""Every public callable with odd arguments: a result, or a typed error whose message is short.

The callables are found: a new one is called too, and one that needs an argument of a new name says that VALUES lacks it.  Kernels,
transport and distill have theirs in tests/kernels/calls.py.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill import testing
from fastdistill.checkpoint import read_config, write_checkpoint
from fastdistill.decode import Costs, Request
from fastdistill.errors import FastDistillError
from fastdistill.models import plan_for
from fastdistill.options import resolved
from fastdistill.tasks import task
from fastdistill.text.stream import TextStream
from fastdistill.text.tokenizer import Tokenizer
from fastdistill.unmask import Trace, TraceStep
from tests.draft_heads import random_head
from tests.small_models import config, tensors
from tests.text.tokenizers_made_here import byte_level

NUMBERS = itertools.count()
LONGEST = 300  # characters of a message about an argument
MODULES = (
    "fastdistill", "fastdistill.decode", "fastdistill.decode.drafters", "fastdistill.unmask", "fastdistill.constraint",
    "fastdistill.show", "fastdistill.runtime", "fastdistill.checkpoint", "fastdistill.checkpoint.gguf", "fastdistill.embedded", "fastdistill.fetch", "fastdistill.models.quantize_folder",
    "fastdistill.models.export_folder",
    "fastdistill.testing", "fastdistill.text.chat", "fastdistill.text.stream", "fastdistill.text.tokenizer",
)  # fmt: skip
OTHERS = (
    "fastdistill.kernels",
    "fastdistill.transport",
    "fastdistill.distill",
    "fastdistill.errors",
)

# Not for users to call: made or called by the loop, a session or `load`, with objects of their own.
INSIDE = {
    "Beginning",
    "Config",
    "DraftRequest",
    "Event",
    "GgufFile",
    "Piece",
    "Run",
    "SessionLike",
    "Task",
    "Network",
    "Request",
    "Rule",
    "Remask",
    "Source",
    "Target",
}
MADE_INSIDE = {
    "Model", "Session", "CallableSession", "Rows", "Checkpoint", "Report", "Difference", "ModelSpeed",
}  # fmt: skip
CALLED_INSIDE = {
    "start", "rows", "quotas", "also", "again", "rereads", "replaces", "discounts", "proposed", "read", "masks",  # of decoders, drafters, rules, requests: by the loop
    "run", "pool", "enter", "leave", "entered", "share", "restore", "prepare", "add", "add_stage",  # of sessions, networks, profiles: by a pass
    "bound", "advance", "mask", "may_end", "guess",  # of grammars and constraints: by decoders
    "only", "first",  # of drafts: by decoders
    "rotary_rows", "check_tensors", "eos_token_ids", "target_of",  # of folders: by load and convert
    "get", "tensor", "data", "chunks",  # of GGUF files and tensors: by convert and quantize
}  # fmt: skip


class Unshown:
    """Whose repr fails; callable, with anything."""

    def __init__(self, *arguments: object, **named: object) -> None: ...

    def __call__(self, *arguments: object, **named: object) -> int:
        return 0

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Endless:
    def __repr__(self) -> str:
        return "x" * 3_000_000


class Nothing:
    """Whose calls give 0."""

    def __new__(cls, *arguments: object, **named: object) -> Any:
        return 0


DEEP: list[Any] = []
DEEP.append(DEEP)
ODD: list[Callable[[], Any]] = [  # made anew each time: some are used up, some might be changed
    *(lambda value=value: value for value in (
        None, True, False, 0, -1, 2**31, 2**63, 10**5000, -(10**5000), 0.5, float("nan"), float("inf"), -float("inf"), 1e308, 1j, "", "auto",
        "x" * 100_000, "\ud800", "a\0b", b"x", b"x" * 3_000_000, (), (1,), (None, None), range(3), range(10**12), slice(None), slice("a", 2.5), ...,
        frozenset(), Nothing, print, np.float32(0.5), np.int64(-3), np.bool_(True), np.datetime64("NaT"), Path("nowhere"), NotImplemented,
    )),
    lambda: [], lambda: [[1]], lambda: [1, "a"], lambda: [None], lambda: ["a" * 100_000], lambda: [None] * 100_000, lambda: [10**5000], lambda: [0.5], lambda: DEEP, lambda: {},
    lambda: {"a": 1}, lambda: {10**5000: 10**5000}, lambda: {1: "x" * 10**6}, lambda: {1, 2}, lambda: iter([1]), lambda: (i for i in (1, 2)),
    object, Unshown, Endless, lambda: [Endless()], lambda: [Unshown()], bytearray, lambda: memoryview(b"abc"), lambda: Exception("x" * 10**6),
    lambda: np.zeros(3), lambda: np.zeros((2, 2), np.float32), lambda: np.zeros((0, 3), np.float32), lambda: np.array(5), lambda: np.array(["a"]),
    lambda: np.array([10**5000], object), lambda: np.array([None]), lambda: np.zeros(3, bool), lambda: np.zeros(2, np.uint64) + 2**63,
    lambda: np.array([1, 2], ">i4"), lambda: np.full((1000, 1000), np.nan, np.float32), lambda: np.ma.masked_array([1, 2], [True, False]),
    lambda: np.zeros(2, "datetime64[s]"), lambda: np.zeros(2, [("a", "i4")]), lambda: np.zeros((1,) * 32), fd.Read, fd.Sampler, fd.Unmask, fd.Auto,
]  # fmt: skip


@pytest.fixture(scope="module")
def values(tmp_path_factory) -> dict[str, Callable[[], Any]]:
    """What an argument of this name may be, or one of this callable: `generate.prompt`."""
    folder = tmp_path_factory.mktemp("odd") / "model"
    plan = plan_for(config("plain", 1))
    weights = tensors(plan)
    files = {"tokenizer.json": json.dumps(byte_level()).encode(), "chat_template.jinja": b"{{ messages[0].content }}"}
    write_checkpoint(folder, config("plain", 1).raw, weights.values(), files)
    model = fd.load(folder, threads=1)
    session = model.session(64, 16)

    def emptied() -> Any:
        session.truncate(0)
        return session

    tokenizer = Tokenizer(folder)
    text = model.generate([1, 2], max_tokens=4, decoder=fd.Jacobi(trace=True, adaptive=False))
    costs = Costs((1, 2), (0, 1), ((1.0, 2.0), (1.0, 2.0)))
    array = {"w1": (4, 3), "b1": (4,), "w2": (3, 4), "b2": (3,), "confidence": (2, 3)}
    return {
        **{name: lambda shape=shape: np.zeros(shape, np.float32) for name, shape in array.items()},
        "LearnedFilter.__call__.confidence": lambda: np.zeros((2, 3), np.float32),
        "fit.right": lambda: np.zeros((2, 3), bool), "fit.epochs": lambda: 1,
        "Model": lambda: model, "Network": lambda: model.network, "Session": emptied, "Checkpoint": lambda: fd.checkpoint.open_checkpoint(folder),
        "CallableSession": lambda: fd.from_callable(lambda tokens: np.zeros((len(tokens), 5)), 5, 64), "Tokenizer": lambda: tokenizer,
        "Report": lambda: testing.selftest(0, kernel="philox"), "selftest.seconds": lambda: 0, "selftest.kernel": lambda: "philox",
        "Config": lambda: read_config(folder / "config.json"), "Rows": lambda: model.session(8).prefill([1]), "Trace": lambda: Trace(2, 0, [step()]),
        "Request": lambda: Request(np.array([1], np.int32), 0, fd.Sampler()), "TextStream": lambda: TextStream(tokenizer), "Tensor": lambda: weights["lm_head.weight"],
        "value": lambda: 1, "checkpoint": lambda: fd.checkpoint.open_checkpoint(folder),
        "prompt": lambda: [1, 2], "generate.max_tokens": lambda: 2, "stream.max_tokens": lambda: 2, "ids": lambda: [1, 2], "texts": lambda: "ab", "query": lambda: "ab", "documents": lambda: ["ab"], "other": lambda: "ab", "most": lambda: 9,
        "messages": lambda: [{"role": "user", "content": "hi"}], "tokens": lambda: [1, 2], "indices": lambda: [], "length": lambda: 0,
        "model": lambda: model, "find_folder.model": lambda: folder, "embedded_folder.model": lambda: "x", "folder": lambda: folder,
        "write_checkpoint.folder": lambda: f"made{next(NUMBERS)}", "tokenizer": lambda: tokenizer, "text": lambda: "ab", "token": lambda: 1, "token_id.token": lambda: "a",
        "id": lambda: 1, "stop": lambda: "a", "name": lambda: "smollm2-135m-instruct", "source": lambda: folder, "destination": lambda: f"made{next(NUMBERS)}",
        "convert_gguf.source": lambda: folder / "config.json", "format": lambda: "q8", "config": lambda: config("plain", 1).raw, "tensors": lambda: [],
        "eos_token_ids.config": lambda: read_config(folder / "config.json"), "generation_config": lambda: {}, "path": lambda: folder / "config.json",
        "trace": lambda: Trace(2, 0, [step()]), "trace_png.path": lambda: "made.png", "curves_png.path": lambda: "made.png",
        "runs": lambda: {"one": [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]}, "layout": lambda: np.array([-1, 0], np.int32), "tensor": lambda: weights["lm_head.weight"], "requests": lambda: [(emptied(), fd.Forward([1]))], "task": lambda: task(model, [1, 2], resolved("generate", {})),
        "function": lambda: lambda tokens, *budget: np.zeros((len(tokens), 5)), "vocab_size": lambda: 5, "session": emptied,
        "make_session": lambda: lambda capacity, rows: fd.from_callable(lambda tokens: np.zeros((len(tokens), 5)), 5, capacity), "most_positions": lambda: 16,
        "rows": lambda: (1, 2), "contexts": lambda: (0, 1), "seconds": lambda: costs.seconds, "context": lambda: 1, "__call__.rows": lambda: np.array([1, 2]),
        "given": costs.as_dict, "drafter": fd.PromptLookup, "HeadDrafter.folder": lambda: random_head("plain"), "layers": lambda: 1, "filter": lambda: fd.unmask.LearnedFilter(*(np.zeros(array[n], np.float32) for n in ("w1", "b1", "w2", "b2"))),
        "answer": lambda: [1], "width": lambda: 3, "generation": lambda: text, "acceptance": lambda: [0.5, 0.2], "budget": lambda: 4, "depth": lambda: 2,
        "parents": lambda: np.array([-1], np.int32), "ranks": lambda: np.array([0], np.int32), "drafted": lambda: 1, "accepted": lambda: 1, "expected": lambda: 1.0,
        "log_prob": lambda: 0.0, "top": lambda: (), "log_probs": lambda: np.zeros(1, np.float32), "mask_token": lambda: 0, "shape": lambda: (2, 2),
        "data": lambda: np.zeros((2, 2), np.float32), "StaticTree.parents": lambda: np.array([-1], np.int32), "index": lambda: slice(0, 1),
        "places": lambda: np.zeros(1, np.int32), "schema": lambda: {"type": "null"}, "pattern": lambda: "a", "Lark.grammar": lambda: 'start: "a"', "Gbnf.grammar": lambda: 'root ::= "a"', "Choices.texts": lambda: ["a", "b"], "sequences": lambda: [[1, 2], [1]],
        "TraceStep.tokens": lambda: np.zeros(1, np.int32), "remasked": lambda: np.empty(0, np.int32),
    }  # fmt: skip


def step() -> TraceStep:
    return TraceStep(
        np.array([0], np.int32), np.array([1], np.int32), np.array([0.5], np.float32), np.empty(0, np.int32), 2
    )


def found() -> dict[str, tuple[type | None, Any]]:
    """Name -> its class, where it is a method, and the function or class."""
    callables: dict[str, tuple[type | None, Any]] = {}
    for module_name in MODULES:
        module = import_module(module_name)
        own = [
            name
            for name, value in vars(module).items()
            if getattr(value, "__module__", "") == module_name and name[0] != "_"
        ]
        for name in getattr(module, "__all__", own):
            value = getattr(module, name)
            where = getattr(value, "__module__", "")
            if (
                name in INSIDE
                or not callable(value)
                or where.startswith(OTHERS)
                or not where.startswith("fastdistill")
                or name in CALLED_INSIDE
            ):
                continue
            if not inspect.isclass(value):
                callables[name] = None, value
            elif not getattr(value, "_is_protocol", False) and not issubclass(value, dict):
                if name not in MADE_INSIDE:
                    callables[name] = None, value
                for method in dir(value):
                    member = inspect.getattr_static(value, method)
                    ours = getattr(inspect.unwrap(getattr(value, method)), "__module__", "") or ""
                    plain = inspect.isfunction(member) or isinstance(member, (classmethod, staticmethod))
                    if (
                        plain
                        and ours.startswith("fastdistill")
                        and (method[0] != "_" or method == "__call__")
                        and method not in CALLED_INSIDE
                    ):
                        callables[f"{name}.{method}"] = value, method
    return callables


CALLABLES = found()


def value_of(values: dict[str, Callable[[], Any]], callable_name: str, parameter: str) -> Any:
    for key in (f"{callable_name}.{parameter}", f"{callable_name.rpartition('.')[2]}.{parameter}", parameter):
        if key in values:
            return values[key]()
    raise AssertionError(f"{callable_name} needs an argument {parameter}: VALUES has none of this name")


def instance(values: dict[str, Callable[[], Any]], kind: type) -> Any:
    if kind.__name__ in values:
        return values[kind.__name__]()
    return kind(**required(values, kind.__name__, kind))


def parameters(function: Any) -> list[inspect.Parameter]:
    return [
        each
        for each in inspect.signature(function).parameters.values()
        if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]


def required(values: dict[str, Callable[[], Any]], name: str, function: Any) -> dict[str, Any]:
    """Arguments that are in order, of those that must be given and those that make a call short."""
    short = {
        parameter
        for parameter in ("max_tokens", "epochs", "most_positions", "seconds", "kernel")
        if f"{name.rpartition('.')[2]}.{parameter}" in values or parameter in values
    }
    return {
        each.name: value_of(values, name, each.name)
        for each in parameters(function)
        if each.default is each.empty or each.name in short
    }


def called(name: str, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Call, and look at the error; a generator is run."""
    arguments = dict(arguments)
    documented = (OSError,) if "OSError" in (inspect.getdoc(function) or "") else ()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            first = [arguments.pop(each.name) for each in parameters(function) if each.kind is each.POSITIONAL_ONLY]
            result = function(*first, **arguments)
            if inspect.isgenerator(result):
                list(result)
    except FastDistillError as error:
        assert len(str(error)) <= LONGEST, f"{name}: a message of {len(str(error))} characters: {str(error)[:400]}"
        assert len(str(error).splitlines()) == 1, f"{name}: {error}"
    except documented:
        pass


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """What is written goes there; nothing is fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def refused(*_: object) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr("fastdistill.fetch._make", refused)


def target(values: dict[str, Callable[[], Any]], name: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    kind, function = CALLABLES[name]
    if kind is not None:
        holder = kind if isinstance(inspect.getattr_static(kind, function), classmethod) else instance(values, kind)
        function = getattr(holder, function)
    return function, required(values, name, function)


@pytest.mark.parametrize("name", sorted(CALLABLES))
def test_one_odd_argument(values, name):
    function, _ = target(values, name)
    for parameter in parameters(function):
        for number, odd in enumerate(ODD):
            function, arguments = target(values, name)
            if name == "fetch" and parameter.name == "progress" and (odd() is None or callable(odd())):
                continue  # nothing odd about it: the model would be fetched
            try:
                called(f"{name}({parameter.name}=ODD[{number}])", function, arguments | {parameter.name: odd()})
            except Exception as error:
                raise AssertionError(
                    f"{name}({parameter.name}=ODD[{number}]): {type(error).__name__}: {str(error)[:300]}"
                ) from error


KEYS = st.one_of(st.text(max_size=3), st.integers())
NESTED = st.recursive(  # odd objects, and such within lists, tuples and dicts
    st.integers(0, len(ODD) - 1).map(lambda number: ODD[number]()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=4,
)


@settings(max_examples=200)
@given(name=st.sampled_from(sorted(CALLABLES.keys() - {"fetch"})), data=st.data())
def test_several_odd_arguments(values, name, data):
    function, arguments = target(values, name)
    names = [each.name for each in parameters(function)]
    if names:
        some = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
        called(name, function, arguments | {parameter: data.draw(NESTED) for parameter in some})


@pytest.mark.parametrize("parameter", [each.name for each in parameters(fd.Model.fill) if each.name != "self"])
def test_an_odd_wish_of_what_is_filled(parameter):
    """Of a model that fills masks, as the one above does not."""
    model = fd.load("listops-mdlm", threads=1)
    for number, odd in enumerate(ODD):
        called(f"fill({parameter}=ODD[{number}])", model.fill, {"text": [5, 1, 6], parameter: odd()})


READS = [field.name for field in dataclasses.fields(fd.Read)]


@pytest.mark.parametrize("session", ["Session", "CallableSession"])
@pytest.mark.parametrize("field", READS)
def test_an_odd_wish_of_a_forward(values, session, field):
    for odd in ODD:
        read = fd.Read(**{field: odd()})
        called(f"{session}.forward", values[session]().forward, {"tokens": [1], "read": read})
        called(f"{session}.prefill", values[session]().prefill, {"tokens": [1], "read": read})


def test_odd_results_of_a_function_that_was_given(values):
    model = values["Model"]()
    for odd in ODD:
        given_result = odd()
        logits = fd.from_callable(lambda tokens, result=given_result: result, 5)
        called("from_callable", logits.forward, {"tokens": [1, 2]})
        drafter = fd.CallableDrafter(lambda text, budget, result=given_result: result)
        called("generate", model.generate, {"prompt": [1], "max_tokens": 3, "decoder": fd.Speculative(drafter)})


def test_every_part_has_callables_here():
    """The search finds what it should: were it to find nothing, all of the above would pass."""
    assert len(CALLABLES) > 80
    wanted = {
        "load", "Model.generate", "Model.stream", "Model.fill", "Model.score", "Model.session", "Session.forward", "Session.keep", "CallableSession.forward", "Tokenizer.encode",
        "Tokenizer.decode", "Read", "Unmask", "Jacobi", "Speculative", "Threshold", "PromptLookup", "Tree", "static_tree", "forward_many", "from_callable",
        "write_checkpoint", "quantize_folder", "export_folder", "convert_gguf", "open_checkpoint", "fetch", "find_folder", "render_chat", "TextStream", "LearnedFilter.fit", "generate",
    }  # fmt: skip
    assert wanted <= CALLABLES.keys(), wanted - CALLABLES.keys()
