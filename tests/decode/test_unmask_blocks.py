"""Unmasking with a model of blocks: what the cache holds is exact, blocks are counted from position 0, and it is the default."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.checkpoint import Tensor
from fastdistill.cli.info import _kind
from fastdistill.decode import Request, generate
from fastdistill.errors import ArgumentError, CapacityError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.models import plan_for
from fastdistill.runtime.network import Network
from tests.dense import dense
from tests.families import family_config, network
from tests.goldens.make_families import write_folder
from tests.small_models import tensors
from tests.strategies import bits

MASK = 82
PLAN = plan_for(family_config("sdar"))
SHARP = tensors(PLAN)  # sure enough of itself that thresholds matter
HEAD = SHARP["lm_head.weight"]
SHARP[HEAD.name] = Tensor(HEAD.name, "f32", HEAD.shape, HEAD.data * np.float32(3))


def prompt(length: int) -> list[int]:
    return [(11 * i * i + 5 * i + 2) % MASK for i in range(length)]


def unmask(decoder, ids, count, name="sdar", **options):
    return generate(network(name).session(96, **options), ids, count, decoder=decoder)


rules = st.sampled_from(
    [fd.unmask.Threshold(0.05), fd.unmask.Schedule(), fd.unmask.Schedule(score="random"), fd.unmask.Factor(1.9), fd.unmask.EntropyBudget(4.0)]
)  # fmt: skip


@settings(max_examples=40)
@given(
    name=st.sampled_from(["sdar", "sdar_moe"]),
    format=st.sampled_from(["f32", "q8"]),
    rule=rules,
    first=st.integers(1, 21),
    count=st.integers(0, 14),
    size=st.sampled_from([None, 1, 3, 4, 7, 32]),
    shift=st.integers(0, 1),
    rows=st.sampled_from([64, 256]),
    room=st.integers(1, 30),
    temperature=st.sampled_from([0.0, 0.8]),
    most=st.sampled_from([None, 1, 3]),
)
def test_every_forward_says_what_the_whole_text_says_without_a_cache(
    isa, name, format, rule, first, count, size, shift, rows, room, temperature, most
):
    """Bit for bit, in every forward: statistics, draws, and so the text."""
    decoder = fd.Unmask(rule, block_length=size, logit_shift=shift, early_exit=False, max_steps=most)
    made, ids, size = network(name, format), np.array(prompt(first), np.int32), size or 4
    session = made.session(64, max_rows=rows)
    if first > 1:
        session.prefill(ids[:-1])  # as a chain: none of these rows is one of a block
    request = Request(ids, first - 1, Sampler(temperature, seed=5), max_tokens=count)
    run, written, forwards = decoder.start(session, request), [], 0
    while len(written) < count:
        run.room = room
        asked = run.forward()
        given = session.run(asked)
        if run.decoding:
            text, places = run.text.copy(), first + np.flatnonzero(run.text[first:] == MASK)
            last = max(size * (places[0] // size + 1), 0) if most is None or forwards < most - 1 else len(text)
            nodes = np.arange(len(text)) // size
            whole = made.session(1, max_rows=len(text)).forward(
                text,
                nodes=nodes,
                parents=range(-1, int(nodes[-1])),
                rows=places[places < last] - shift,
                read=asked.read,
            )
            for field, want in zip(given.statistics, whole.statistics, strict=True):
                np.testing.assert_array_equal(bits(field), bits(want))
            if temperature:
                np.testing.assert_array_equal(given.tokens, whole.tokens)
            assert (
                len(asked.tokens) <= 2 * size + shift or forwards == (most or 0) - 1
            )  # a block, and the one before it
            forwards += 1
        written += [token for token, _ in run.take(given)]
    assert MASK not in written


def plainly(raw, stored, ids, count, size, threshold):
    """The released sampler's loop, over the dense model: whole blocks of prompt and masks, one after the other."""
    text = np.array([*ids, *[MASK] * count])
    for start in range(len(ids) // size * size, len(text), size):
        end = min(start + size, len(text))
        while (text[start:end] == MASK).any():
            blocks = np.arange(end) // size
            logits = dense(raw, stored, text[:end], list(range(end)), blocks[:, None] >= blocks[None, :])
            logits[:, MASK] = -np.inf
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            masked = start + np.flatnonzero(text[start:end] == MASK)
            sure = p[masked].max(axis=1)
            chosen = masked[(sure >= threshold) | (np.arange(len(masked)) == sure.argmax())]
            text[chosen] = p[chosen].argmax(axis=1)
    return text[len(ids) :].tolist()


@pytest.mark.parametrize("first", [1, 3, 4, 5, 8, 10])
@pytest.mark.parametrize("size", [None, 3])
def test_a_prompt_ends_within_the_first_block_that_is_written(first, size):
    made = Network(PLAN, SHARP, threads=2)
    for threshold in (0.3, 0.9):
        decoder = fd.Unmask(fd.unmask.Threshold(threshold), block_length=size, early_exit=False, trace=True)
        got = generate(made.session(40), prompt(first), 14, decoder=decoder)
        assert got.tokens == plainly(family_config("sdar").raw, SHARP, prompt(first), 14, size or 4, threshold)
        blocks = [{(first + place) // (size or 4) for place in step.places.tolist()} for step in got.trace.steps]
        assert all(len(each) == 1 for each in blocks) and sorted(blocks, key=min) == blocks


def test_the_models_blocks_are_the_default_and_others_are_said():
    ids = prompt(9)
    own = unmask(fd.Unmask(), ids, 16)
    assert unmask(None, ids, 16).tokens == own.tokens
    assert unmask(fd.Unmask(attention="block_causal", block_length=4), ids, 16).tokens == own.tokens
    other = {
        tuple(unmask(decoder, ids, 16).tokens)
        for decoder in (
            fd.Unmask(block_length=8),
            fd.Unmask(attention="full"),
            fd.Unmask(attention="full", block_length=4),
        )
    }
    assert len(other) == 3 and tuple(own.tokens) not in other
    many = fd.Unmask(fd.unmask.Schedule(), drafts=3, early_exit=False)
    assert unmask(many, ids, 16).tokens == unmask(replace(many, drafts=0), ids, 16).tokens
    assert unmask(many, ids, 16).stats.forwards < 16
    with pytest.raises(ArgumentError, match="exact cache of its own"):
        unmask(fd.Unmask(cache="dual"), ids, 16)
    assert unmask(fd.Unmask(attention="full", block_length=4, cache="dual"), ids, 16).tokens


def test_rows_that_others_left_in_a_session_are_read_again():
    """Nobody knows of rows that are held whom they saw: a chain's, or those of other blocks."""
    session, ids = network("sdar").session(60), prompt(18)
    fresh = unmask(fd.Unmask(), ids, 9)
    for before in (fd.Unmask(), fd.Unmask(block_length=1), fd.Unmask(block_length=8), fd.Unmask(attention="full")):
        generate(session, ids, 7, decoder=before)
        again = generate(session, ids, 9, decoder=fd.Unmask())
        assert again.tokens == fresh.tokens and again.stats.reused_tokens == 0
    session.truncate(0)
    session.prefill(ids)
    assert generate(session, ids, 9).tokens == fresh.tokens


def test_a_block_that_no_forward_holds_is_refused():
    with pytest.raises(CapacityError, match="max_rows"):
        unmask(fd.Unmask(block_length=16), prompt(40), 9, max_rows=9)


def test_a_model_writes_and_says_its_blocks(tmp_path, capsys):
    from fastdistill.cli import main

    write_folder(tmp_path / "model", family_config("sdar"))
    model = fd.load(tmp_path / "model", threads=2)
    ids = prompt(70)
    texts = model.generate([ids[:20], ids], max_tokens=12)
    assert [text.tokens for text in texts] == [model.generate(each, max_tokens=12).tokens for each in (ids[:20], ids)]
    assert model.generate(ids, max_tokens=12).stats.forwards >= math.ceil(12 / 4)
    assert main(["info", str(tmp_path / "model")]) == 0
    assert "fills masks, token 82, in blocks of 4" in capsys.readouterr().out
    assert "any order" in _kind(
        {
            "source_positions": 0,
            "causal": False,
            "encodes": False,
            "labels": [],
            "mask_token": 1,
            "mask_spelling": None,
            "block": 0,
        }
    )
