"""One of several texts fails, in any way and with any decoder: the others are those that are written without it."""

from __future__ import annotations

import functools
import gc
import weakref

import numpy as np
import pytest

from fastdistill.checkpoint import Tensor
from fastdistill.decode import (
    Auto,
    Autoregressive,
    BeamSearch,
    CallableDrafter,
    Costs,
    Jacobi,
    LayerSkip,
    Lookahead,
    ModelDrafter,
    PromptLookup,
    Request,
    Speculative,
    Tree,
    Unmask,
    generate,
)
from fastdistill.decode.generation import unless_failed
from fastdistill.decode.text import Text
from fastdistill.errors import ArgumentError, BusyError, NotFiniteError, PartialError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.models import plan_for
from fastdistill.runtime import from_callable
from fastdistill.runtime.network import Network
from fastdistill.unmask import Schedule
from tests import small_models
from tests.texts import events, written

POISON = 7  # the token whose embedding is NaN
COUNT = 12
COSTS = Costs((1, 16), (0, 100), ((1.0, 1.5), (1.0, 1.5)))


@functools.cache
def network(masks=False) -> Network:
    config = small_models.llada_config() if masks else small_models.config("plain")
    plan = plan_for(config)
    tensors = small_models.tensors(plan)
    name = "model.transformer.wte.weight" if masks else "model.embed_tokens.weight"
    tensor = tensors[name]
    data = tensor.data.copy()
    data[POISON] = np.nan
    return Network(plan, {**tensors, name: Tensor(name, tensor.format, tensor.shape, data)}, threads=1)


def successor(tokens):
    """Each token is followed by the next but one, and by the poison none."""
    if POISON in tokens:
        raise ZeroDivisionError("a function that fails")
    return np.eye(300, dtype=np.float32)[(tokens + 2) % 300]


DECODERS = {
    "plain": Autoregressive(),
    "lookup": Speculative(PromptLookup(min_match=1)),
    "tree": Speculative(PromptLookup(min_match=1, continuations=2), tree=Tree(2, 3)),
    "law": Speculative(PromptLookup(min_match=1), rule="rejection"),
    "model": Speculative(ModelDrafter(network()), max_draft=3),
    "skip": Speculative(LayerSkip(1), max_draft=3),
    "auto": Auto(COSTS),
    "jacobi": Jacobi(4, costs=COSTS),
    "lookahead": Lookahead(3, 3, 3, costs=COSTS),
    "beam": BeamSearch(3),
    "unmask": Unmask(Schedule(steps=6), block_length=6),
    "cached": Unmask(block_length=6, cache="dual"),
}
MASKS = ("unmask", "cached")
LATE = (*MASKS, "beam")  # whose tokens may come after others' first ones


class Failing:
    """A decoder that fails in its start, or in the n-th call of one of its run's methods."""

    def __init__(self, inner, where, number=0):
        self.inner, self.where, self.number = inner, where, number

    def start(self, session, request):
        if self.where == "start":
            raise KeyError("a decoder that fails")
        run = self.inner.start(session, request)
        if self.where == "taken over":
            method, failing = run.forward, lambda: setattr(session, "writer", None) or method()
            run.forward = failing
        elif self.where in ("forward", "take"):
            method, calls = getattr(run, self.where), iter(range(self.number))

            def failing(*arguments):
                if next(calls, None) is None:
                    raise KeyError("a run that fails")
                return method(*arguments)

            setattr(run, self.where, failing)
        return run


class Pieces:
    """A stream of text that fails at a token."""

    stopped = False

    def __init__(self, good):
        self.left = good

    def push(self, token):
        self.left -= 1
        if self.left < 0:
            raise UnicodeError("a stream that fails")
        return f"{token} "

    def finish(self):
        return "."


FAULTS = {
    "start": KeyError,
    "forward": KeyError,
    "take": KeyError,
    "late take": KeyError,
    "taken over": BusyError,
    "mask": ArgumentError,
    "not finite": NotFiniteError,
    "stream": UnicodeError,
}


def begun(name, prompt, fault=None, function=False):
    """What begins a text; a run that has a session is given it again after the text."""
    decoder, masks = DECODERS[name], name in MASKS
    if fault == "not finite":
        prompt = [*prompt, POISON]
    if function:
        session = from_callable(successor, 300, 64, mask_token=299 if masks else None)
    else:
        session = network(masks).session(64, max_rows=64)
    allowed = np.zeros(-(-session.vocab_size // 32), np.uint32) if fault == "mask" else None
    temperature = 0.0 if name == "beam" else 1.0
    sampler = Sampler(temperature=temperature, seed=3, logit_bias={POISON: -np.inf})
    request = Request(
        np.array(prompt, np.int32), 0, sampler, max_tokens=COUNT, allowed=allowed, logprobs=0 if masks else 1
    )
    where, number = {"late take": ("take", 2), "take": ("take", 0)}.get(fault, (fault, 0))
    decoder = decoder if fault is None else Failing(decoder, where, number)
    stream = Pieces(3) if fault == "stream" else None
    return session, lambda: Text(session, request, decoder, stream)


def facts(result, session):
    return result.tokens, result.finish_reason, result.logprobs, session.tokens.tolist(), session.pending


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", DECODERS)
def test_a_text_fails_alone(name, fault):
    prompts = [[1, 2, 3, 1, 2], [4], [5, 1, 5, 2]]
    alone = []
    for prompt in prompts[::2]:
        session, begin = begun(name, prompt)
        alone.append(facts(written([begin], 1)[0], session))
    makers = [begun(name, prompts[0]), begun(name, prompts[1], fault), begun(name, prompts[2])]
    results = written([begin for _, begin in makers], 3)
    sessions = [session for session, _ in makers]
    assert [facts(results[n], sessions[n]) for n in (0, 2)] == alone
    failed = results[1]
    assert failed.finish_reason == "error" and type(failed.error) is FAULTS[fault]
    assert failed.error.__traceback__ is None and len(failed.tokens) <= COUNT
    if fault in ("late take", "stream") and name not in LATE:
        assert failed.tokens
    if fault == "stream":
        assert failed.text.endswith(".")  # what was held back comes out
    if fault != "taken over":  # what the session holds is the text's, and nothing waits in it
        text = [*prompts[1], *([POISON] if fault == "not finite" else []), *failed.tokens]
        assert sessions[1].pending == 0 and sessions[1].common_prefix(np.array(text)) == sessions[1].length
    with pytest.raises(PartialError) as raised:
        unless_failed(results)
    assert raised.value.results == results and raised.value.errors == {1: failed.error}


@pytest.mark.parametrize("name", ["plain", "lookup", "auto", "jacobi", "unmask"])
def test_a_function_fails_for_one_text_alone(name):
    makers = [
        begun(name, [10], function=True),
        begun(name, [12, POISON], function=True),
        begun(name, [20], function=True),
    ]
    results = written([begin for _, begin in makers], 3)
    assert [result.finish_reason for result in results] == ["length", "error", "length"]
    for result, first in ((results[0], 10), (results[2], 20)):
        assert result.tokens == written([begun(name, [first], function=True)[1]], 1)[0].tokens
    assert type(results[1].error) is ZeroDivisionError
    assert "successor" in results[1].error.__notes__[0]  # where it came from


def test_a_drafter_that_fails_in_the_middle_leaves_the_text_so_far():
    def guesses(text, budget):
        if len(text) > 8:
            raise OSError("no more guesses")
        return [1] * budget

    session = network().session(64)
    request = Request(np.array([1, 2], np.int32), 0, Sampler(logit_bias={POISON: -np.inf}), max_tokens=20)
    begin = [
        lambda: Text(session, request, Speculative(CallableDrafter(guesses)), None),
        lambda: Text(network().session(64), request, Autoregressive(), None),
    ]
    failed, plain = written(begin, 2)
    assert type(failed.error) is OSError and len(failed.tokens) == 7
    assert failed.tokens == plain.tokens[:7] and session.tokens.tolist() == [1, 2, *failed.tokens[:-1]]
    with pytest.raises(OSError, match="no more guesses"):
        generate(network().session(64), [1, 2], 20, request.sampler, decoder=Speculative(CallableDrafter(guesses)))


def test_an_error_that_is_its_own_cause_is_kept_like_any_other():
    def fails(tokens):
        error = ValueError("no logits")
        raise error from error

    with pytest.raises(ValueError, match="no logits"):
        generate(from_callable(fails, 10), [1], 2, Sampler())


def test_pieces_of_the_others_go_on_coming():
    made = [begun("plain", [1], fault)[1]() for fault in (None, "stream", "not finite")]
    made[0]._speller = Pieces(COUNT)
    found = events(made)
    for number, text in enumerate(made):
        pieces = [event.piece for event in found if event.task.number == number]
        assert (
            "".join(pieces) == text.result.text
            and [token for piece in pieces for token in piece.tokens] == text.result.tokens
        )
        assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert pieces[-1].finish_reason == text.result.finish_reason
    assert made[0].result.text.count(" ") == COUNT and made[0].result.error is None


def test_where_all_fail_the_first_error_is_raised():
    def begin():
        raise ArgumentError("no such option")

    with pytest.raises(ArgumentError, match="no such option"):
        unless_failed(written([begin] * 3, 2))
    assert unless_failed([]) == []


def test_results_of_texts_that_failed_keep_no_session():
    dead = []

    def of(fault):
        session, begin = begun("lookup", [1, 2], fault)
        dead.append(weakref.ref(session))
        return begin

    gc.collect()
    gc.disable()
    try:
        results = written([of(fault) for fault in FAULTS], 3)
        gc.collect()  # a run and its session may know each other
        assert [session() for session in dead] == [None] * len(FAULTS)
    finally:
        gc.enable()
    assert [type(result.error) for result in results] == list(FAULTS.values())
