"""Masks within a text: every rule against a loop written plainly, what stands around them, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.decode import Request
from fastdistill.decode.chance import ORDER, uniforms
from fastdistill.decode.text import Text
from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.unmask import EndOfText, Schedule
from tests.decode.test_unmask import LAYOUTS, RULES, bound, network, plainly, remasks, rules, session, states_of, unmask
from tests.texts import events

MASK = {layout: network(layout).plan.mask_token for layout in LAYOUTS}
VIEWS = [dict(cache="none"), dict(cache="prefix"), dict(cache="dual"), dict(cache="dual", refresh_every=2)]


def holed(length: int, masks: int, layout="llada", seed: int = 0) -> list[int]:
    """A random text with so many masks, the first token none of them."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, MASK[layout], length)
    ids[1 + rng.choice(length - 1, masks, replace=False)] = MASK[layout]
    return ids.tolist()


def begun(ids, decoder, layout="llada", sampler=None, logprobs=0, rows=None) -> Text:
    text = np.array(ids, np.int32)
    request = Request(
        text, 0, sampler or Sampler(), max_tokens=int((text == MASK[layout]).sum()), logprobs=logprobs, within=True
    )
    return Text(session(layout, len(ids), rows=rows), request, decoder, None)


def fill(ids, decoder, layout="llada", **options):
    text = begun(ids, decoder, layout, **options)
    events([text])
    if text.result.error is not None:
        raise text.result.error
    return text.result


def whole(ids, tokens, layout="llada") -> list[int]:
    left = iter(tokens)
    return [next(left) if token == MASK[layout] else token for token in ids]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", RULES)
def test_a_rule_fills_what_a_plain_loop_fills(name, layout, isa):
    rule, choose = RULES[name]
    for seed in range(3):
        ids = holed(17 + seed, 11, layout, seed)
        wanted, forwards = plainly(states_of(layout), ids, 0, MASK[layout], choose(11))
        result = fill(ids, fd.Unmask(rule), layout)
        assert (whole(ids, result.tokens, layout), result.stats.forwards) == (wanted, forwards)
        assert (result.stats.committed, result.stats.new_tokens, result.finish_reason) == (11, 11, "length")


@settings(max_examples=80)
@given(
    rule=rules, layout=st.sampled_from(LAYOUTS), view=st.sampled_from(VIEWS), block=st.none() | st.integers(3, 30), remask=remasks,
    length=st.integers(2, 24), share=st.floats(0, 1), most=st.none() | st.integers(1, 20), temperature=st.sampled_from([0.0, 1.0]), seed=st.integers(0, 3),
)  # fmt: skip
def test_every_mask_is_filled_and_nothing_else_in_any_company(
    rule, layout, view, block, remask, length, share, most, temperature, seed
):
    """What a forward runs is the text, but for masks that have been filled; in passes with others it is what it is alone."""
    masks = 1 + int(share * (length - 2))
    decoder = fd.Unmask(
        rule, block_length=block, max_steps=most, remask=remask, temperature=temperature, trace=True, **view
    )
    texts = [holed(length, masks, layout, 10 * seed + number) for number in range(3)]
    sampler = Sampler(seed=seed)
    alone = [fill(ids, decoder, layout, sampler=sampler) for ids in texts]
    together = [begun(ids, decoder, layout, sampler) for ids in texts]
    events(together)
    for ids, one, text in zip(texts, alone, together, strict=True):
        assert text.result.tokens == one.tokens and len(one.tokens) == masks and MASK[layout] not in one.tokens
        assert text.run.text.tolist() == whole(ids, one.tokens, layout)
        assert 1 <= one.stats.forwards == len(one.trace.steps) <= bound(decoder, masks)
        assert one.trace.states()[-1].tolist() == one.tokens


@settings(max_examples=40)
@given(
    rule=rules, layout=st.sampled_from(LAYOUTS), block=st.none() | st.integers(3, 9), count=st.integers(1, 12), length=st.integers(1, 5),
    remask=remasks, view=st.sampled_from(VIEWS), temperature=st.sampled_from([0.0, 1.0]), seed=st.integers(0, 3), drafts=st.integers(0, 3),
)  # fmt: skip
def test_masks_that_end_a_text_are_those_behind_a_prompt(
    rule, layout, block, count, length, remask, view, temperature, seed, drafts
):
    if type(rule) is not Schedule or temperature or remask or "refresh_every" in view:
        drafts = 0
    decoder = fd.Unmask(
        rule, block_length=block, remask=remask, temperature=temperature, drafts=drafts, early_exit=False, **view
    )
    ids = holed(length + 1, 0, layout, seed)
    within = fill([*ids, *[MASK[layout]] * count], decoder, layout, sampler=Sampler(seed=seed))
    behind = unmask(decoder, ids, count, layout, Sampler(seed=seed))
    assert (within.tokens, within.stats.forwards) == (behind.tokens, behind.stats.forwards)


def test_an_order_by_chance_is_that_of_positions():
    """As behind a prompt, whatever else of the text is masked: a position has its own chance."""
    decoder, ids = fd.Unmask(Schedule(score="random"), trace=True), holed(20, 8)
    positions = np.flatnonzero(np.array(ids) == MASK["llada"])
    chances = uniforms(Sampler(), positions.astype(np.uint32), 0, 8, ORDER).astype(np.float32)
    order = np.argsort(fill(ids, decoder).trace.filled_at())
    assert order.tolist() == np.argsort(-chances, kind="stable").tolist()


@settings(max_examples=30)
@given(
    rule=rules, layout=st.sampled_from(LAYOUTS), block=st.none() | st.integers(3, 9), cache=st.sampled_from(["prefix", "dual"]),
    masks=st.integers(1, 15), remask=remasks, seed=st.integers(0, 3),
)  # fmt: skip
def test_a_cache_made_anew_in_every_forward_is_exact(rule, layout, block, cache, masks, remask, seed):
    exact, ids = fd.Unmask(rule, block_length=block, remask=remask), holed(20, masks, layout, seed)
    anew = fill(ids, replace(exact, cache=cache, refresh_every=1), layout)
    assert anew.tokens == fill(ids, exact, layout).tokens


@settings(max_examples=30)
@given(
    layout=st.sampled_from(LAYOUTS), block=st.none() | st.integers(3, 9), drafts=st.integers(1, 6), masks=st.integers(1, 15), seed=st.integers(0, 3),
    view=st.sampled_from(VIEWS[:3]), rows=st.sampled_from([30, 300]),
)  # fmt: skip
def test_drafts_never_change_what_is_filled(layout, block, drafts, masks, seed, view, rows):
    static, ids = fd.Unmask(Schedule(), block_length=block, **view), holed(20, masks, layout, seed)
    wanted, result = fill(ids, static, layout), fill(ids, replace(static, drafts=drafts), layout, rows=rows)
    assert result.tokens == wanted.tokens and result.stats.forwards <= wanted.stats.forwards


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("remask", [None, fd.unmask.Remdm(0.5, 2, 2), fd.unmask.Revise(0.0, 1)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_log_probabilities_are_those_of_the_forward_that_filled(within, remask, temperature):
    """Whatever is drawn, and whether it is asked for or not: the model's own, of all tokens but the mask."""
    decoder = fd.Unmask(Schedule(4), remask=remask, temperature=temperature, trace=True, early_exit=False)
    ids = holed(14, 6) if within else [*holed(8, 0), *[MASK["llada"]] * 6]
    request = Request(np.array(ids[:8], np.int32), 0, Sampler(), max_tokens=6, logprobs=3)
    text = begun(ids, decoder, logprobs=3) if within else Text(session("llada", 14), request, decoder, None)
    events([text])
    got = text.result
    assert got.tokens == fill(ids, decoder).tokens and len(got.logprobs) == 6
    positions, states, filled_at = (
        np.flatnonzero(np.array(ids) == MASK["llada"]),
        got.trace.states(),
        got.trace.filled_at(),
    )
    for place, (entry, token) in enumerate(zip(got.logprobs, got.tokens, strict=True)):
        logits = states_of("llada")(whole(ids, states[filled_at[place]]))[positions[place]].astype(np.float64)
        logits[MASK["llada"]] = -np.inf
        want = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        best = np.argsort(-want, kind="stable")[:3]
        assert entry.token == token and [each for each, _ in entry.top] == best.tolist()
        np.testing.assert_allclose([entry.log_prob, *(each for _, each in entry.top)], want[[token, *best]], atol=1e-5)


def test_what_cannot_be_filled_is_refused():
    mask = MASK["llada"]
    with pytest.raises(UnsupportedError, match="block sees nothing behind"):
        begun([1, mask, 2], fd.Unmask(attention="block_causal", block_length=2))
    with pytest.raises(ArgumentError, match="begins with a mask"):
        begun([MASK["dream"], 1, 2], fd.Unmask(), "dream")
    assert fill([mask, 1, 2], fd.Unmask()).tokens != [mask]
    with pytest.raises(ArgumentError, match="end is of masks that end the text"):
        begun([1, mask, 2], fd.Unmask(end=EndOfText(truncate_at=0.5)))
    with pytest.raises(ArgumentError, match="drafts run several"):
        begun([1, mask, 2], fd.Unmask(Schedule(), drafts=2), logprobs=1)
