"""Unmasking: every setting against a loop written plainly, and what each of them promises."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill import show
from fastdistill.api import Model
from fastdistill.checkpoint import Tensor
from fastdistill.decode import Autoregressive, Request, generate
from fastdistill.decode.generation import Statistics
from fastdistill.decode.text import Text
from fastdistill.decode.unmask.rules import Step, block_confidence
from fastdistill.decode.unmask.schedules import KINDS, quotas, quotas_of_blocks
from fastdistill.errors import ArgumentError, CapacityError
from fastdistill.kernels.forward.row_statistics import row_statistics
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.models import plan_for
from fastdistill.runtime import from_callable
from fastdistill.runtime.network import Network
from fastdistill.runtime.read import Read
from fastdistill.unmask import EndOfText, Oracle
from tests import small_models
from tests.texts import events

LAYOUTS = ("llada", "dream")


@functools.cache
def network(layout="llada", seed=0):
    """A random model: sure enough of itself that thresholds matter."""
    config = small_models.llada_config() if layout == "llada" else small_models.dream_config()
    plan = plan_for(config)
    tensors = small_models.tensors(plan, seed)
    head = "model.transformer.ff_out.weight" if layout == "llada" else "lm_head.weight"
    tensors[head] = Tensor(head, "f32", tensors[head].shape, tensors[head].data * np.float32(3))
    return Network(plan, tensors, threads=2)


def session(layout="llada", length=64, seed=0, rows=None):
    return network(layout, seed).session(length, max_rows=rows or 8 * length)


def prompt(length, layout="llada", seed=0):
    return np.random.default_rng(seed).integers(0, network(layout).plan.mask_token, length).tolist()


def unmask(decoder, ids, count, layout="llada", sampler=None, ends=frozenset(), seed=0, **options):
    return generate(session(layout, len(ids) + count, seed, **options), ids, count, sampler, ends, decoder)


@functools.cache
def states_of(layout, seed=0):
    """A function from a whole text, prompt and masks, to logits of each of its positions."""

    def logits(text):
        s = session(layout, len(text), seed)
        rows = s.forward(text, nodes=[0] * len(text), parents=[-1], read=Read(logits=True)).logits
        shift = s.logit_shift
        return rows.copy() if not shift else np.concatenate([rows[:1], rows[:-1]])

    return logits


def plainly(logits, text, first, mask, choose):
    """The loop without caches, statistics or kernels: choose(step, places, confidence, entropy, margin) -> places to fill."""
    text, forwards = np.array(text, np.int32), 0
    while (text == mask).any():
        z = logits(text).astype(np.float64)
        z[:, mask] = -np.inf
        z -= z.max(axis=1, keepdims=True)
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        two = np.sort(p, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.where(p > 0, p * np.log(p), 0).sum(axis=1)
        places = np.flatnonzero(text == mask) - first
        at = places + first
        chosen = choose(forwards, places, p[at].max(axis=1), entropy[at], two[at, -1] - two[at, -2])
        text[np.array(chosen) + first] = p[np.array(chosen) + first].argmax(axis=1)
        forwards += 1
    return text[first:].tolist(), forwards


def best(places, score, count):
    return [place for _, place in sorted(zip(-score, places, strict=True))[:count]]


def passing(places, score, least):
    chosen = [place for place, value in zip(places, score, strict=True) if value >= least]
    return chosen or best(places, score, 1)


def factored(factor):
    def choose(step, places, confidence, entropy, margin):
        order = best(places, confidence, len(places))
        ranked = -np.sort(-confidence)
        fits = [n for n in range(1, len(places) + 1) if (n + 1) * (1 - ranked[n - 1]) < factor]
        return order[: max(fits, default=1)]

    return choose


def capped(threshold, most):
    def choose(step, places, confidence, entropy, margin):
        return best(places, confidence, max(min(int((confidence >= threshold).sum()), most), 1))

    return choose


def scheduled(kind, steps, score, count):
    sizes = quotas(kind, count, steps)

    def choose(step, places, confidence, entropy, margin):
        return best(places, {"confidence": confidence, "entropy": -entropy, "margin": margin}[score], sizes[step])

    return choose


RULES = {
    "one a step": (fd.unmask.Schedule(), lambda n: scheduled("linear", None, "confidence", n)),
    "three steps": (fd.unmask.Schedule(steps=3), lambda n: scheduled("linear", 3, "confidence", n)),
    "by entropy": (fd.unmask.Schedule(steps=4, score="entropy"), lambda n: scheduled("linear", 4, "entropy", n)),
    "by margin": (fd.unmask.Schedule(steps=4, score="margin"), lambda n: scheduled("linear", 4, "margin", n)),
    "cosine": (fd.unmask.Schedule(steps=5, kind="cosine"), lambda n: scheduled("cosine", 5, "confidence", n)),
    "ascending": (fd.unmask.Schedule(kind="ascending"), lambda n: scheduled("ascending", None, "confidence", n)),
    "threshold": (fd.unmask.Threshold(0.5), lambda n: lambda s, places, c, h, m: passing(places, c, 0.5)),
    "threshold 0": (fd.unmask.Threshold(0), lambda n: lambda s, places, c, h, m: places),
    "threshold 1": (fd.unmask.Threshold(1), lambda n: lambda s, places, c, h, m: best(places, c, 1)),
    "entropy": (fd.unmask.EntropyThreshold(1.0), lambda n: lambda s, places, c, h, m: passing(places, -h, -1.0)),
    "factor": (fd.unmask.Factor(2.0), lambda n: factored(2.0)),
    "adaptive": (fd.unmask.Adaptive(0.3, most=2), lambda n: capped(0.3, 2)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", RULES)
def test_a_rule_fills_what_a_plain_loop_fills(name, layout, isa):
    rule, choose = RULES[name]
    for seed in range(3):
        ids = prompt(5 + seed, layout, seed)
        mask = network(layout).plan.mask_token
        wanted, forwards = plainly(states_of(layout), [*ids, *[mask] * 11], len(ids), mask, choose(11))
        result = unmask(fd.Unmask(rule, early_exit=False), ids, 11, layout)
        assert (result.tokens, result.stats.forwards) == (wanted, forwards)
        assert result.stats.committed == 11


rules = st.one_of(
    st.builds(fd.unmask.Schedule, st.none() | st.integers(6, 30), st.sampled_from(["confidence", "margin", "entropy", "random"]), st.sampled_from(KINDS)),
    st.builds(fd.unmask.Threshold, st.floats(0, 1), st.integers(1, 2), st.none() | st.integers(2, 5)),
    st.builds(fd.unmask.EntropyThreshold, st.floats(0, 3)),
    st.builds(fd.unmask.EntropyBudget, st.floats(0, 3)),
    st.builds(fd.unmask.Factor, st.floats(0, 4)),
    st.builds(fd.unmask.Adaptive, st.floats(0, 1)),
    st.builds(fd.unmask.Explore, st.floats(0, 2), st.integers(0, 3), st.integers(0, 0)),
)  # fmt: skip
ends = st.builds(
    fd.unmask.EndOfText, st.just(1.0), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([None, 0.0, 0.2, 1.0])
)
remasks = st.sampled_from([None, None, fd.unmask.Remdm(0.5, 2, 2), fd.unmask.Remdm(0, 1, 50), fd.unmask.Revise(0.2, 2)])
views = st.sampled_from(
    [dict(cache="none"), dict(cache="prefix"), dict(cache="dual"), dict(cache="dual", refresh_every=2), dict(attention="block_causal")]
)  # fmt: skip


def bound(decoder, count):
    """Forwards that a decoder takes at most."""
    extra = 0
    if isinstance(decoder.remask, fd.unmask.Remdm):
        size = decoder.block_length or count
        blocks = -(-count // size)
        extra = blocks * decoder.remask.steps * min(decoder.remask.count, size)
    most = count + extra
    return most if decoder.max_steps is None else min(most, decoder.max_steps)


@settings(max_examples=150)
@given(
    rule=rules, layout=st.sampled_from(LAYOUTS), count=st.integers(1, 18), length=st.integers(1, 6), view=views,
    block=st.none() | st.integers(3, 30), most=st.none() | st.integers(1, 20), remask=remasks, end=ends, seed=st.integers(0, 2),
    temperature=st.sampled_from([0.0, 0.0, 1.0]), early=st.booleans(), stops=st.frozensets(st.integers(0, 88), max_size=30),
)  # fmt: skip
def test_every_answer_is_filled_within_its_bound(
    rule, layout, count, length, view, block, most, remask, end, seed, temperature, early, stops
):
    """At least one position a step, never one that is filled, none left over; the prompt stays; the trace tells the story."""
    decoder = fd.Unmask(
        rule, block_length=block, max_steps=most, remask=remask, end=end, temperature=temperature, early_exit=early, trace=True, **view
    )  # fmt: skip
    mask = network(layout).plan.mask_token
    result = unmask(decoder, prompt(length, layout, seed), count, layout, Sampler(seed=seed), stops)
    stats, trace = result.stats, result.trace
    assert 1 <= stats.forwards <= bound(decoder, count) and stats.forwards == len(trace.steps)
    assert mask not in result.tokens and len(result.tokens) <= count
    assert result.finish_reason == ("stop" if result.tokens[-1] in stops else "length")
    states = trace.states()
    for before, after, step in zip(states, states[1:], trace.steps, strict=False):
        filled = before[step.places] == mask
        if not isinstance(remask, fd.unmask.Revise):
            assert filled.all()
        assert filled.any() and (np.diff(step.places) > 0).all()
        untouched = np.setdiff1d(np.arange(step.length), step.places)
        untouched = np.setdiff1d(untouched, step.remasked)
        assert (before[untouched] == after[untouched]).all()
        assert (step.confidence > 0).all() and (step.confidence <= 1).all()
    if remask is None or not early:
        assert states[-1][: len(result.tokens)].tolist() == result.tokens
    if not early:
        assert (states[-1][: trace.steps[-1].length] != mask).all()
    if end.truncate_at is None and not early:
        assert stats.committed == count


@settings(max_examples=60)
@given(
    rule=rules, layout=st.sampled_from(LAYOUTS), block=st.none() | st.integers(3, 9), view=views, count=st.integers(1, 18),
    temperature=st.sampled_from([0.0, 1.0]), drafts=st.integers(0, 3), stops=st.frozensets(st.integers(0, 88), max_size=10),
)  # fmt: skip
def test_batches_and_levels_change_nothing(rule, layout, block, view, count, temperature, drafts, stops):
    if type(rule) is not fd.unmask.Schedule or temperature or "refresh_every" in view:
        drafts = 0
    decoder = fd.Unmask(rule, block_length=block, temperature=temperature, drafts=drafts, trace=True, **view)
    prompts = [prompt(2 + i, layout, i) for i in range(4)]
    alone = [unmask(decoder, ids, count, layout, ends=stops) for ids in prompts]
    texts = []
    for ids in prompts:
        request = Request(np.array(ids, np.int32), 0, Sampler(), max_tokens=count, end_tokens=stops)
        texts.append(Text(session(layout, len(ids) + count), request, decoder, None))
    events(texts)
    for one, text in zip(alone, texts, strict=True):
        assert text.result.tokens == one.tokens and show.trace(text.result.trace) == show.trace(one.trace)


@settings(max_examples=100)
@given(
    layout=st.sampled_from(LAYOUTS), steps=st.none() | st.integers(6, 20), score=st.sampled_from(["confidence", "margin", "entropy", "random"]),
    kind=st.sampled_from(KINDS), block=st.none() | st.integers(3, 9), view=views, count=st.integers(1, 18), drafts=st.integers(1, 8),
    seed=st.integers(0, 3), stops=st.frozensets(st.integers(0, 88), max_size=5), rows=st.sampled_from([30, 300]),
)  # fmt: skip
def test_drafts_never_change_the_answer(layout, steps, score, kind, block, view, count, drafts, seed, stops, rows):
    """FreeDave: the static schedule's answer, and the order in which it came, in no more forwards."""
    view = {name: value for name, value in view.items() if name != "refresh_every"}
    static = fd.Unmask(
        fd.unmask.Schedule(steps, score, kind), block_length=block, trace=True, early_exit=not seed, **view
    )
    ids = prompt(4, layout, seed)
    wanted = unmask(static, ids, count, layout, ends=stops)
    result = unmask(replace(static, drafts=drafts), ids, count, layout, ends=stops, rows=rows)
    assert (result.tokens, result.finish_reason) == (wanted.tokens, wanted.finish_reason)
    assert wanted.stats.forwards / (drafts + 1) <= result.stats.forwards <= wanted.stats.forwards
    states = {state.tobytes() for state in wanted.trace.states()}
    if result.stats.committed <= wanted.stats.committed:
        assert all(state.tobytes() in states for state in result.trace.states())
        sure = [{place: p for step in trace.steps for place, p in zip(step.places.tolist(), step.confidence.tolist(), strict=True)}
                for trace in (wanted.trace, result.trace)]  # fmt: skip
        assert sure[1].items() <= sure[0].items()
    if drafts == 1:
        assert result.stats.forwards == wanted.stats.forwards


@settings(max_examples=60)
@given(
    rule=rules, layout=st.sampled_from(LAYOUTS), block=st.none() | st.integers(3, 9), cache=st.sampled_from(["prefix", "dual"]),
    count=st.integers(1, 18), remask=remasks,
)  # fmt: skip
def test_a_cache_made_anew_in_every_forward_is_exact(rule, layout, block, cache, count, remask):
    decoder = fd.Unmask(rule, block_length=block, remask=remask, trace=True, early_exit=False)
    ids = prompt(3, layout)
    plain = unmask(decoder, ids, count, layout)
    cached = unmask(replace(decoder, cache=cache, refresh_every=1), ids, count, layout)
    assert cached.tokens == plain.tokens and show.trace(cached.trace) == show.trace(plain.trace)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_a_cache_holds_a_blocks_first_forward(layout, cache):
    """Rows before the block, of "dual" those behind it too, stay what the block's first forward made them; the others are run anew."""
    plan, changed = network(layout).plan, 0
    for seed in range(4):
        ids, count, size, shift, mask = prompt(5, layout, seed), 14, 4, plan.logit_shift, plan.mask_token
        text, first = np.array([*ids, *[mask] * count], np.int32), len(ids)
        s = session(layout, len(text))
        for start in range(first, len(text), size):
            end = min(start + size, len(text))
            begin, stop, replaced = 0, len(text), None
            s.truncate(0)
            while (text[start:end] == mask).any():
                rows = text[begin:stop]
                read = Read(logits=True, banned=np.array([mask], np.int32))
                given = s.forward(rows, nodes=[0] * len(rows), parents=[-1], replace=replaced, read=read)
                sure = given.statistics.top - given.statistics.log_sum_exp
                block = np.arange(start, end)[text[start:end] == mask]
                at = block[sure[block - shift - begin].argmax()]
                text[at] = given.statistics.argmax[at - shift - begin]
                if begin == 0 and replaced is None:
                    s.keep(range(start - shift if cache == "prefix" else len(text)))
                    begin = start - shift
                    stop, replaced = (stop, None) if cache == "prefix" else (end, (begin, end))
                else:
                    s.truncate(s.length)
        decoder = fd.Unmask(fd.unmask.Schedule(), block_length=size, early_exit=False)
        wanted = text[first:].tolist()
        assert unmask(replace(decoder, cache=cache), ids, count, layout).tokens == wanted
        changed += unmask(decoder, ids, count, layout).tokens != wanted
    assert changed  # what is held is stale


def test_with_one_step_a_block_caches_change_nothing():
    """Each block's first forward is the whole text's."""
    for cache in ("prefix", "dual"):
        decoder = fd.Unmask(fd.unmask.Threshold(0), block_length=4, early_exit=False)
        assert unmask(replace(decoder, cache=cache), prompt(5), 14).tokens == unmask(decoder, prompt(5), 14).tokens


@pytest.mark.parametrize("layout", LAYOUTS)
def test_block_causal_attention_needs_no_cache_to_be_exact(layout):
    """Each forward's answer is that of the whole text under block-causal visibility, recomputed from nothing."""
    ids, count, size = prompt(5, layout), 11, 4
    mask = network(layout).plan.mask_token
    shift = network(layout).plan.logit_shift
    first, text = len(ids), np.array([*ids, *[mask] * count], np.int32)

    def logits(text, end):
        s = session(layout, end)
        nodes = [*range(first), *(first + i // size for i in range(end - first))]
        return s.forward(text[:end], nodes=nodes, parents=range(-1, nodes[-1]), read=Read(logits=True)).logits

    for start in range(first, first + count, size):
        end = min(start + size, first + count)
        while (text[start:end] == mask).any():
            z = logits(text, end).astype(np.float64)
            z = z[start - shift : end - shift]
            z[:, mask] = -np.inf
            sure = z.max(axis=1) - np.log(np.exp(z - z.max(axis=1, keepdims=True)).sum(axis=1)) - z.max(axis=1)
            sure[text[start:end] != mask] = -np.inf
            at = int(sure.argmax())
            text[start + at] = z[at].argmax()
    decoder = fd.Unmask(fd.unmask.Schedule(), block_length=size, attention="block_causal", early_exit=False)
    assert unmask(decoder, ids, count, layout).tokens == text[first:].tolist()


def test_blocks_of_one_are_plain_decoding():
    """A causal model, read with a shift of one and a mask that it never sees the like of: the autoregressive text."""
    causal = small_models.network()
    ids = [3, 1, 4, 1, 5]
    plain = generate(causal.session(40), ids, 20, decoder=Autoregressive())
    mask = next(token for token in range(300) if token not in plain.tokens and token not in ids)
    decoder = fd.Unmask(block_length=1, attention="block_causal", mask_token=mask, logit_shift=1)
    assert generate(causal.session(40), ids, 20, decoder=decoder).tokens == plain.tokens


def test_block_causal_prompts_are_read_in_chunks_and_reused():
    ids = prompt(30)
    decoder = fd.Unmask(fd.unmask.Schedule(), block_length=4, attention="block_causal")
    wanted = unmask(decoder, ids, 8)
    chunked = generate(network().session(38, max_rows=9), ids, 8, decoder=decoder)
    assert chunked.tokens == wanted.tokens and chunked.stats.forwards == wanted.stats.forwards == 8
    s = session(length=60)
    generate(s, ids, 8, decoder=decoder)
    again = generate(s, [*ids, 7], 8, decoder=decoder)
    assert again.tokens == unmask(decoder, [*ids, 7], 8).tokens and again.stats.reused_tokens == 30
    full = generate(s, ids, 8, decoder=fd.Unmask())
    assert full.stats.reused_tokens == 0 and full.tokens == unmask(fd.Unmask(), ids, 8).tokens


@pytest.mark.parametrize("view", [dict(), dict(cache="prefix"), dict(cache="dual"), dict(attention="block_causal")])
def test_an_early_exit_writes_the_same_text(view):
    for seed in range(4):
        decoder = fd.Unmask(fd.unmask.Threshold(0.4), block_length=5, **view)
        ids, stops = prompt(4, seed=seed), frozenset(range(0, 89, 6))
        short = unmask(decoder, ids, 25, ends=stops)
        whole = unmask(replace(decoder, early_exit=False), ids, 25, ends=stops)
        assert short.tokens == whole.tokens and short.stats.forwards <= whole.stats.forwards


def test_text_is_certain_from_its_beginning_on():
    """What is released while writing is what the answer is at the end."""
    for remask in (None, fd.unmask.Remdm(0.5, 2, 2), fd.unmask.Remdm(0.9, 1, 7), fd.unmask.RunningConfidence()):
        decoder = fd.Unmask(fd.unmask.Schedule(), block_length=8, remask=remask, trace=True)
        s = session(length=24)
        request = Request(np.array(prompt(4), np.int32), 0, Sampler(), max_tokens=16)
        run = decoder.start(s, request)
        seen = []
        for _ in range(40):
            released = run.take(s.run(run.forward()))
            seen += [token for token, _ in released]
            if len(seen) == 16:
                break
        assert seen == unmask(replace(decoder, early_exit=False), prompt(4), 16).tokens


# ---- remasking ----


@settings(max_examples=40)
@given(
    steps=st.integers(4, 20), kind=st.sampled_from(KINDS), block=st.none() | st.integers(5, 9), count=st.integers(5, 16)
)
def test_running_confidence_takes_the_schedules_steps(steps, kind, block, count):
    rule = fd.unmask.Schedule(steps, kind=kind)
    decoder = fd.Unmask(rule, block_length=block, remask=fd.unmask.RunningConfidence(), trace=True, early_exit=False)
    result = unmask(decoder, prompt(4), count)
    sizes = [min(block or count, count - start) for start in range(0, count, block or count)]
    wanted = quotas_of_blocks(kind, sizes, steps)
    assert result.stats.forwards == sum(map(len, wanted)) and result.stats.committed == count
    left = [sum(some[i + 1 :]) for some in wanted for i in range(len(some))]
    assert [len(step.remasked) for step in result.trace.steps] == left
    confidence, blocks = np.full(count, np.nan, np.float32), [i for i, some in enumerate(wanted) for _ in some]
    for number, step in zip(blocks, result.trace.steps, strict=True):  # those masked again are the block's least sure
        confidence[step.places] = step.confidence
        start = sum(sizes[:number])
        held = np.sort(confidence[start : start + sizes[number]])
        assert np.sort(confidence[step.remasked]).tolist() == held[: len(step.remasked)].tolist()


def test_remasking_late_takes_the_least_sure_tokens_back():
    decoder = fd.Unmask(
        fd.unmask.Schedule(), remask=fd.unmask.Remdm(at=0.75, steps=2, count=3), trace=True, early_exit=False
    )
    trace = unmask(decoder, prompt(4), 12).trace
    assert len(trace.steps) == 12 + 2
    back = [i for i, step in enumerate(trace.steps) if len(step.remasked)]
    assert [len(trace.steps[i].remasked) for i in back] == [3, 3]
    confidence = np.full(12, np.nan)
    for i, step in enumerate(trace.steps):
        confidence[step.places] = step.confidence
        if i == back[0]:
            held = np.sort(confidence[~np.isnan(confidence)])
            assert sorted(confidence[step.remasked]) == held[:3].tolist() and len(held) == 9
            assert len(trace.steps[i + 1].places) == 3
        confidence[step.remasked] = np.nan


def test_a_token_is_revised_at_most_so_many_times():
    for times in (0, 1, 3):
        decoder = fd.Unmask(fd.unmask.Schedule(), remask=fd.unmask.Revise(0.0, times), trace=True, early_exit=False)
        result = unmask(decoder, prompt(4), 12)
        count = np.zeros(12, int)
        for step in result.trace.steps:
            count[step.places] += 1
        assert count.max() <= 1 + times and result.stats.forwards == 12
    assert count.max() > 1


def test_each_block_gets_its_steps_of_remasking():
    decoder = fd.Unmask(
        fd.unmask.Schedule(), block_length=4, remask=fd.unmask.Remdm(0.75), trace=True, early_exit=False
    )
    trace = unmask(decoder, prompt(4), 12).trace
    assert [place // 4 for step in trace.steps for place in step.remasked.tolist()] == [0, 1, 2]


def test_a_token_is_revised_for_one_that_is_probable_enough():
    plain = fd.Unmask(fd.unmask.Schedule(), trace=True, early_exit=False)
    revised = 0
    for threshold in (0.3, 1.0):
        for seed in range(6):
            result = unmask(replace(plain, remask=fd.unmask.Revise(threshold, 9)), prompt(4, seed=seed), 12)
            for before, step in zip(result.trace.states(), result.trace.steps, strict=False):
                again = before[step.places] != network().plan.mask_token
                assert (step.confidence[again] >= np.float32(threshold) * (1 - 1e-6)).all()
                revised += int(again.sum())
            if threshold == 1:
                assert result.tokens == unmask(plain, prompt(4, seed=seed), 12).tokens
    assert revised


# ---- the end of the text ----


@pytest.mark.parametrize("discount", [0.3, 0.7])
def test_a_discount_grows_evenly_to_one(discount):
    ends, mask, changed = frozenset(range(0, 89, 2)), network().plan.mask_token, 0
    for seed in range(4):
        ids, count = prompt(4, seed=seed), 10
        text, order = np.array([*ids, *[mask] * count]), []
        for filled in range(count):
            z = states_of("llada")(text).astype(np.float64)
            z[:, mask] = -np.inf
            p = np.exp(z - z.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            share = np.where(np.isin(p.argmax(axis=1), list(ends)), discount + (1 - discount) * filled / count, 1)
            at = int(np.where(text == mask, p.max(axis=1) * share, -1).argmax())
            text[at] = p[at].argmax()
            order.append(at - len(ids))
        decoder = fd.Unmask(fd.unmask.Schedule(), end=fd.unmask.EndOfText(discount), trace=True, early_exit=False)
        result = unmask(decoder, ids, count, ends=ends)
        assert result.trace.states()[-1].tolist() == text[len(ids) :].tolist()
        assert np.argsort(result.trace.filled_at()).tolist() == order
        plain = unmask(replace(decoder, end=EndOfText()), ids, count, ends=ends)
        changed += show.trace(plain.trace) != show.trace(result.trace)
    assert changed


def test_tokens_that_end_the_text_are_banned_by_place_and_by_progress_to_the_letter():
    """min_tokens: from the place on that comes after so many; banned_until: from the forward on that comes after so many are filled."""
    model = Model(network(), Path("none"), frozenset(range(60)))
    first = []
    for seed in range(8):
        ids, options = prompt(4, seed=seed), dict(early_exit=False, trace=True)
        text = model.generate(ids, max_tokens=8, min_tokens=4, decoder=fd.Unmask(fd.unmask.Schedule(), **options))
        assert all(token >= 60 for token in text.trace.states()[-1][:4].tolist())
        first.append(int(text.trace.states()[-1][4]))
        end = fd.unmask.EndOfText(banned_until=0.5)
        steps = model.generate(
            ids, max_tokens=8, decoder=fd.Unmask(fd.unmask.Schedule(), end=end, **options)
        ).trace.steps
        assert all(step.tokens[0] >= 60 for step in steps[:4])
        first.append(int(steps[4].tokens[0]))
    assert min(first[::2]) < 60 and min(first[1::2]) < 60


def test_only_an_end_that_is_probable_enough_cuts_an_answer():
    """Each place after the first is token 1 or 2, with a half each, and 1 is taken."""

    def logits(tokens):
        rows = np.tile(np.array([-np.inf, 0, 0, 0], np.float32), (len(tokens), 1))
        rows[1] = 3, 0, 0, 0
        return rows

    def forwards(truncate_at):
        decoder = fd.Unmask(fd.unmask.Schedule(), end=fd.unmask.EndOfText(truncate_at=truncate_at))
        result = generate(from_callable(logits, 4, mask_token=3), [0], 5, None, frozenset({1}), decoder)
        assert result.tokens == [0, 1] and result.finish_reason == "stop"
        return result.stats.forwards

    assert [forwards(at) for at in (0.0, 0.5, 0.51, 1.0)] == [1, 1, 2, 2]


def test_end_of_text_discounted_to_nothing_comes_last():
    """Confidence times 0 at first: an end token is filled only once nothing else is left to fill."""
    ends = frozenset(range(0, 89, 2))
    decoder = fd.Unmask(fd.unmask.Schedule(), end=fd.unmask.EndOfText(discount=0.0), trace=True, early_exit=False)
    logits = states_of("llada")
    result = unmask(decoder, prompt(4), 10, ends=ends)
    states = result.trace.states()
    for before, step in zip(states, result.trace.steps, strict=False):
        if step.tokens[0] in ends and (before != 89).sum() == 0:
            z = logits([*prompt(4), *before])[4:]
            z[:, 89] = -np.inf
            assert all(token in ends for token in z[before == 89].argmax(axis=1))
    plain = fd.Unmask(fd.unmask.Schedule(), early_exit=False)
    same = unmask(replace(plain, end=fd.unmask.EndOfText(discount=1.0)), prompt(4), 10, ends=ends)
    assert same.tokens == unmask(plain, prompt(4), 10, ends=ends).tokens


def test_end_of_text_banned_until_a_part_is_filled():
    ends = frozenset(range(0, 60))
    decoder = fd.Unmask(fd.unmask.Schedule(), end=fd.unmask.EndOfText(banned_until=0.5), trace=True, early_exit=False)
    trace = unmask(decoder, prompt(4), 12, ends=ends).trace
    early = [token for step in trace.steps[:6] for token in step.tokens.tolist()]
    assert not ends.intersection(early)
    assert ends.intersection(token for step in trace.steps[6:] for token in step.tokens.tolist())


def test_a_truncated_answer_ends_with_its_first_end_token():
    for threshold in (0.0, 0.3):
        for cache in ("none", "prefix", "dual"):
            ends = frozenset(range(0, 89, 11))
            end = fd.unmask.EndOfText(truncate_at=threshold)
            decoder = fd.Unmask(
                fd.unmask.Schedule(), end=end, cache=cache, block_length=6, trace=True, early_exit=False
            )
            result = unmask(decoder, prompt(4), 24, ends=ends)
            assert result.trace.steps[-1].length == len(result.tokens) and result.tokens[-1] in ends
    never = unmask(decoder, prompt(4), 24, ends=frozenset())
    assert never.tokens == unmask(replace(decoder, end=EndOfText()), prompt(4), 24).tokens


@pytest.mark.parametrize(
    "remask", [fd.unmask.RunningConfidence(), fd.unmask.Remdm(0.2, 3, 5), fd.unmask.Revise(0.0, 3)]
)
def test_the_token_that_ended_an_answer_is_not_taken_back(remask):
    """What was behind it is gone: without it the answer would end with no end."""
    ends, shorter = frozenset(range(0, 89, 7)), 0
    for seed in range(20):
        decoder = fd.Unmask(
            fd.unmask.Schedule(), remask=remask, end=fd.unmask.EndOfText(truncate_at=0.0), early_exit=False
        )
        result = unmask(decoder, prompt(3, seed=seed), 10, ends=ends)
        assert result.finish_reason == ("stop" if result.tokens[-1] in ends else "length")
        shorter += result.finish_reason == "stop"
    assert shorter > 3


def test_a_mask_that_ends_the_text_ends_nothing():
    decoder = fd.Unmask(fd.unmask.Schedule(), end=fd.unmask.EndOfText(truncate_at=0.0))
    assert unmask(decoder, prompt(4), 8, ends=frozenset({89})).tokens == unmask(decoder, prompt(4), 8).tokens


# ---- the learned filter ----


def block_examples():
    examples = []
    for seed in range(12):
        ids = prompt(4, seed=seed)
        answer = unmask(fd.Unmask(fd.unmask.Schedule(), early_exit=False), ids, 8).tokens
        rule = Oracle(answer, 8, examples)
        result = unmask(fd.Unmask(rule, early_exit=False), ids, 8)
        assert result.tokens == answer and result.stats.forwards <= 8
    return [np.stack(arrays) for arrays in zip(*examples, strict=True)]


def test_a_filter_learns_what_an_oracle_shows():
    confidence, right = block_examples()
    untrained = fd.unmask.LearnedFilter.fit(confidence, right, epochs=0)
    trained = fd.unmask.LearnedFilter.fit(confidence, right, epochs=400)

    def loss(filter):
        z = filter(confidence).astype(np.float64)
        return np.mean(np.logaddexp(0, z) - right * z)

    assert loss(trained) < 0.7 * loss(untrained)
    again = fd.unmask.LearnedFilter.fit(confidence, right, epochs=400)
    assert again(confidence).tobytes() == trained(confidence).tobytes()
    rule = fd.unmask.Learned(trained, accept=0.9)
    result = unmask(fd.Unmask(rule, block_length=8, early_exit=False), prompt(4), 20)
    assert result.stats.committed == 20 and result.stats.forwards <= 20


@pytest.mark.parametrize("bias, forwards", [(-np.inf, 13), (np.inf, 2)])
def test_a_filter_that_accepts_nothing_or_everything(bias, forwards):
    zeros = np.zeros((8, 8), np.float32)
    filter = fd.unmask.LearnedFilter(zeros, zeros[0], zeros, np.full(8, bias, np.float32))
    result = unmask(fd.Unmask(fd.unmask.Learned(filter), block_length=8, early_exit=False), prompt(4), 13)
    assert result.stats.forwards == forwards
    if bias < 0:
        assert (
            result.tokens
            == unmask(fd.Unmask(fd.unmask.Schedule(), block_length=8, early_exit=False), prompt(4), 13).tokens
        )


def test_the_filters_threshold_is_on_the_logit():
    logit = math.log(0.96 / 0.04)
    for z, wanted in (
        (np.nextafter(np.float32(logit), np.float32(-9)), False),
        (np.float32(logit) + np.float32(1e-6), True),
    ):
        zeros = np.zeros((4, 4), np.float32)
        filter = fd.unmask.LearnedFilter(zeros, zeros[0], zeros, np.full(4, z, np.float32))
        result = unmask(fd.Unmask(fd.unmask.Learned(filter), early_exit=False), prompt(4), 4)
        assert (result.stats.forwards == 1) == wanted


# ---- schedules ----


@given(kind=st.sampled_from(KINDS), masked=st.integers(0, 512), steps=st.none() | st.integers(1, 512))
def test_a_schedule_fills_everything_and_something_in_each_step(kind, masked, steps):
    made = quotas(kind, masked, steps)
    assert sum(made) == masked and all(quota >= 1 for quota in made)
    if masked and steps is not None:
        assert len(made) == min(steps, masked)
    if kind == "linear" and masked:
        assert made == sorted(made, reverse=True) and made[0] - made[-1] <= 1


def test_known_schedules():
    assert quotas("ascending", 256) == [1, 2, 4, 8, 16, 32, 64, 129]
    assert quotas("ascending", 256, 8) == [1, 2, 4, 8, 16, 32, 64, 129]
    assert quotas("linear", 10, 4) == [3, 3, 2, 2]
    assert quotas("linear", 5) == [1] * 5
    assert quotas("cosine", 16, 4) == [2, 3, 5, 6]
    assert quotas_of_blocks("linear", [4, 4, 2], 7) == [[2, 1, 1], [2, 2], [1, 1]]
    with pytest.raises(ArgumentError, match="at least the number of blocks, 3, got 2"):
        quotas_of_blocks("linear", [4, 4, 2], 2)


# ---- chance ----


def test_chance_is_the_seeds():
    decoder = fd.Unmask(fd.unmask.Schedule(), temperature=1.0, early_exit=False)
    texts = [unmask(decoder, prompt(4), 10, sampler=Sampler(seed=seed)).tokens for seed in (0, 0, 1, 2)]
    assert texts[0] == texts[1] and len({tuple(text) for text in texts}) == 3
    request = unmask(replace(decoder, temperature=None), prompt(4), 10, sampler=Sampler(temperature=1.0))
    assert request.tokens == texts[0]
    orders = [
        unmask(
            fd.Unmask(fd.unmask.Schedule(score="random"), trace=True, early_exit=False),
            prompt(4),
            10,
            sampler=Sampler(seed=seed),
        )
        .trace.filled_at()
        .tolist()
        for seed in range(3)
    ]
    assert len({tuple(order) for order in orders}) == 3


def test_runs_of_tokens_have_no_order_here():
    with pytest.raises(ArgumentError, match="no_repeat_ngram_size is of texts written from left to right"):
        fd.load("listops-mdlm").generate([1, 2], no_repeat_ngram_size=2)


def test_frequency_and_presence_penalty_count_what_is_filled():
    """By hand, as in plain decoding, since the first of equally sure positions is filled first; in one step, nothing counts yet."""
    logits = np.array([3.0, 2.7, 2.45, 0.0], np.float32)
    sampler = Sampler(frequency_penalty=0.4, presence_penalty=0.2)
    for rule, want in ((fd.unmask.Schedule(score="margin"), [0, 1, 2, 0, 1, 0]), (fd.unmask.Schedule(1), [0] * 6)):
        flat = from_callable(lambda tokens: np.tile(logits, (len(tokens), 1)), 4, mask_token=3)
        assert generate(flat, [0, 0, 2], 6, sampler, decoder=fd.Unmask(rule)).tokens == want


def test_a_draw_has_the_confidence_of_its_token_and_new_noise_in_each_step():
    ids, mask = prompt(4), network().plan.mask_token
    trace = unmask(fd.Unmask(fd.unmask.Schedule(), temperature=2.0, trace=True, early_exit=False), ids, 10).trace
    for state, step in zip(trace.states(), trace.steps, strict=False):
        z = states_of("llada")(np.array([*ids, *state])).astype(np.float64)[len(ids) :][step.places]
        z[:, mask] = -np.inf
        p = np.exp(z - z.max(axis=1, keepdims=True))
        np.testing.assert_allclose(step.confidence, (p / p.sum(axis=1, keepdims=True))[0, step.tokens], rtol=1e-4)
    s = session(length=14)
    run = fd.Unmask(fd.unmask.Schedule()).start(
        s, Request(np.array(ids, np.int32), 0, Sampler(temperature=1.0), max_tokens=10)
    )
    for round in range(3):
        asked = run.forward()
        assert asked.read.sampler.round == round
        run.take(s.run(asked))


def test_exploring_begins_within_the_block():
    """Where nothing is certain, blocks are filled one after the other, whatever may be filled ahead."""
    decoder = fd.Unmask(fd.unmask.Explore(0.0, 1, 2), block_length=4, trace=True, early_exit=False)
    for seed in range(4):
        places = [step.places.tolist() for step in unmask(decoder, prompt(4, seed=seed), 12).trace.steps]
        assert [place // 4 for (place,) in places] == [0] * 4 + [1] * 4 + [2] * 4


# ---- wrong use ----


@pytest.mark.parametrize(
    "settings, said",
    [
        (dict(rule="threshold"), "rule must be one of those for unmasking"),
        (dict(block_length=0), "block_length"),
        (dict(max_steps=0), "max_steps"),
        (dict(cache="all"), "cache must be one of none, prefix, dual"),
        (dict(attention="causal"), "attention must be one of full, block_causal"),
        (dict(attention="block_causal", cache="dual"), "exact cache of its own"),
        (dict(attention="block_causal", rule=fd.unmask.Explore()), "sees nothing ahead"),
        (dict(refresh_every=2), "refresh_every needs a cache"),
        (dict(remask=fd.unmask.RunningConfidence()), r"must be an unmask\.Schedule"),
        (dict(remask="all"), r"remask must be unmask\.Run"),
        (dict(drafts=2), r"need rule=unmask\.Schedule"),
        (dict(drafts=2, rule=fd.unmask.Schedule(), max_steps=3), "no remask, max_steps"),
        (dict(drafts=65), "drafts"),
        (dict(temperature=float("nan")), "temperature"),
        (dict(temperature=-1), "temperature"),
        (dict(logit_shift=2), "logit_shift"),
        (dict(end=0.5), r"end must be an unmask\.EndOfText"),
        (
            dict(rule=fd.unmask.Schedule(score="entropy"), end=fd.unmask.EndOfText(discount=0.5)),
            "discount is of confidence",
        ),
        (dict(early_exit=1), "early_exit"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ArgumentError, match=said):
        fd.Unmask(**settings)


@pytest.mark.parametrize("bad", [float("nan"), -0.1, 1.1, "0.9", None])
def test_thresholds_that_are_none_are_refused(bad):
    for make in (
        fd.unmask.Threshold,
        fd.unmask.Adaptive,
        lambda t: fd.unmask.Revise(threshold=t),
        lambda t: fd.unmask.EndOfText(discount=t),
    ):
        if bad is None and make in (fd.unmask.Threshold, fd.unmask.Adaptive):
            continue
        with pytest.raises(ArgumentError):
            make(bad)
    for make in (
        fd.unmask.Threshold,
        fd.unmask.Adaptive,
    ):  # a step that fills nothing would be followed by the same one for ever
        with pytest.raises(ArgumentError, match="least"):
            make(0.9, least=0)
    for make in (fd.unmask.Factor, fd.unmask.EntropyBudget, fd.unmask.EntropyThreshold):
        if bad != 1.1 and bad is not None:
            with pytest.raises(ArgumentError):
                make(bad)


def test_prompts_and_models_that_cannot_be_unmasked_are_refused():
    with pytest.raises(ArgumentError, match="holds the mask token, 89, at 1"):
        unmask(fd.Unmask(), [1, 89, 2], 4)
    with pytest.raises(ArgumentError, match="no mask token"):
        generate(small_models.network().session(20), [1, 2], 4, decoder=fd.Unmask())
    with pytest.raises(ArgumentError, match="mask_token"):
        unmask(fd.Unmask(mask_token=90), [1, 2], 4)
    with pytest.raises(CapacityError, match="no place is left"):
        generate(session(length=4), [1, 2, 3, 4], 4, decoder=fd.Unmask())
    with pytest.raises(CapacityError, match="takes 6 rows, more than the session's max_rows = 5"):
        generate(session(length=8, rows=5), [1, 2], 4, decoder=fd.Unmask())
    with pytest.raises(ArgumentError, match="Oracle fills a position with the mask token, 89"):
        unmask(fd.Unmask(Oracle([89, 1], 2)), [1, 2], 2)
    with pytest.raises(ArgumentError, match="temperature 0"):
        unmask(fd.Unmask(fd.unmask.Schedule(), drafts=2, temperature=1.0), [1, 2], 4)
    with pytest.raises(ArgumentError, match="at most 4 positions"):
        zeros = np.zeros((4, 4), np.float32)
        unmask(fd.Unmask(fd.unmask.Learned(fd.unmask.LearnedFilter(zeros, zeros[0], zeros, zeros[0]))), [1, 2], 9)


def test_what_fits_is_written():
    """A block longer than the answer, an answer of nothing, a session that is too short for the whole of it."""
    assert unmask(fd.Unmask(block_length=100), [1, 2], 5).tokens == unmask(fd.Unmask(), [1, 2], 5).tokens
    assert unmask(fd.Unmask(), [1, 2], 0).tokens == []
    short = generate(session(length=8), [1, 2, 3], 50, decoder=fd.Unmask())
    assert len(short.tokens) == 5 and short.finish_reason == "capacity"
    assert short.tokens == unmask(fd.Unmask(), [1, 2, 3], 5).tokens


def test_rates_count_every_token_that_a_forward_filled():
    filled = Statistics(new_tokens=4, committed=6, forwards=2, decode_seconds=2.0)
    assert (filled.tokens_per_forward, filled.tokens_per_second) == (3, 2)
    chain = Statistics(new_tokens=5, forwards=4, decode_seconds=2.0)  # the first token is the prompt's
    assert (chain.tokens_per_forward, chain.tokens_per_second) == (1, 2)


# ---- over a function ----


def test_any_function_can_be_unmasked():
    """From tokens to logits: the model's own function gives the model's own text, shifted or not."""
    for layout in LAYOUTS:
        plan = network(layout).plan
        raw = states_of(layout)
        shift = plan.logit_shift

        def logits(tokens, raw=raw, shift=shift):
            z = raw(tokens)
            return np.concatenate([z[1:], z[-1:]]) if shift else z

        for view in (dict(), dict(cache="dual", refresh_every=1)):
            decoder = fd.Unmask(fd.unmask.Threshold(0.4), block_length=4, **view)
            made = from_callable(logits, plan.vocab_size, mask_token=plan.mask_token, logit_shift=shift)
            result = generate(made, prompt(5, layout), 11, decoder=decoder)
            assert result.tokens == unmask(decoder, prompt(5, layout), 11, layout).tokens


def test_rows_of_a_chain_do_not_see_those_after_them():
    """A function of a diffusion model looks at all tokens that it is given: each row gets its own."""
    seen = []

    def logits(tokens):
        seen.append(tokens.tolist())
        return np.zeros((len(tokens), 4), np.float32)

    from_callable(logits, 4, mask_token=3).forward([0, 1, 2], rows=[0, 2])
    assert seen == [[0], [0, 1, 2]]


def test_a_masked_model_is_unmasked_by_default():
    assert generate(session(length=8), [1, 2, 3], 5).tokens == unmask(fd.Unmask(), [1, 2, 3], 5).tokens


def test_a_filter_reads_ones_where_nothing_is_masked():
    statistics = row_statistics(np.zeros((2, 4), np.float32))
    step = Step(range(4, 7), np.array([4, 6]), np.array([0, 0]), np.log(np.array([0.25, 0.5], np.float32)), statistics)
    assert np.allclose(block_confidence(step, 5), [0.25, 1, 0.5, 1, 1])
