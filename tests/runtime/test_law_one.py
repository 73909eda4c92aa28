"""Law 1: a token's logits depend on what it sees and on nothing else, bit for bit.

The oracle runs one token a forward, on the scalar level, with one thread.  Slots that nobody may read hold NaN.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.checkpoint import Tensor
from fastdistill.models import plan_for
from fastdistill.runtime import forward_many
from fastdistill.runtime.forward import Forward
from fastdistill.runtime.network import Network
from tests.small_models import FORMATS, config, tensors
from tests.strategies import (
    ALPHABET,
    LOGITS,
    Setting,
    Tree,
    assert_rows,
    bits,
    cut,
    level,
    poisoned,
    settings_of_models,
    token_lists,
    trees,
)  # fmt: skip

FEWER = settings(max_examples=20)


@FEWER
@given(setting=settings_of_models, text=token_lists(1, 40), data=st.data())
def test_any_split_of_a_text_into_forwards_gives_the_same_bits(isa, setting, text, data):
    session, want = setting.session(), setting.oracle.rows(text)
    for piece in cut(data.draw, len(text), setting.max_rows):
        assert_rows(session.forward(text[piece], read=LOGITS), want[piece])


@given(setting=settings_of_models, context=token_lists(0, 12), tree=trees(), data=st.data())
def test_a_row_of_a_tree_has_the_bits_of_its_path_as_a_text(isa, setting, context, tree, data):
    session = setting.session()
    if context:
        session.prefill(context)
    want = np.stack([setting.oracle.rows(context + tree.text(row))[-1] for row in range(len(tree.tokens))])
    for piece in cut(data.draw, len(tree.tokens), setting.max_rows):
        assert_rows(session.forward(tree.tokens[piece], parents=tree.parents[piece], read=LOGITS), want[piece])


@FEWER
@given(
    setting=settings_of_models,
    context=token_lists(0, 6),
    rounds=st.lists(trees(9), min_size=1, max_size=3),
    data=st.data(),
)
def test_a_path_kept_out_of_a_tree_is_a_text_like_any_other(isa, setting, context, rounds, data):
    session, text = setting.session(max_rows=16), list(context)
    if context:
        session.prefill(context)
    for tree in rounds:
        session.forward(tree.tokens, parents=tree.parents, rows=())
        leaf = data.draw(st.integers(-1, len(tree.tokens) - 1))
        session.keep(tree.path(leaf))
        text += tree.text(leaf)
        assert session.tokens.tolist() == text
        rows = session.forward([1, 2], read=LOGITS)
        text += [1, 2]
        assert_rows(rows, setting.oracle.rows(text)[-2:])


@FEWER
@given(setting=settings_of_models, text=token_lists(2, 20), other=token_lists(1, 10), data=st.data())
def test_truncated_and_forked_sessions_go_on_like_fresh_ones(isa, setting, text, other, data):
    session = setting.session()
    session.prefill(text)
    n = data.draw(st.integers(0, len(text)))
    twin = session.fork()
    session.truncate(n)
    assert_rows(session.prefill(other, LOGITS), setting.oracle.rows(text[:n] + other)[-1:])
    assert_rows(twin.prefill(other, LOGITS), setting.oracle.rows(text + other)[-1:])


@FEWER
@given(setting=settings_of_models, texts=st.lists(token_lists(1, 12), min_size=1, max_size=5), data=st.data())
def test_a_sequence_has_the_same_bits_whoever_shares_the_pass(isa, setting, texts, data):
    parts = [data.draw(st.integers(0, min(4, len(text) - 1))) for text in texts]
    sessions = [setting.session(data.draw(st.integers(len(text), 300))) for text in texts]
    for session, text, n in zip(sessions, texts, parts, strict=True):
        if n:
            session.prefill(text[:n])
    most = min(8, setting.max_rows)
    requests = [
        (s, Forward(text[n : n + most], read=LOGITS)) for s, text, n in zip(sessions, texts, parts, strict=True)
    ]
    for result, text, n, (_, asked) in zip(forward_many(requests), texts, parts, requests, strict=True):
        assert_rows(result, setting.oracle.rows(text)[n : n + len(asked.tokens)])


def test_sessions_of_one_model_may_run_in_several_python_threads_at_once(isa):
    """Whoever finds the pool taken works alone: the same bits."""
    setting = Setting("plain", "q4", threads=2)
    texts = [[seed % ALPHABET, *range(ALPHABET)] * 4 for seed in range(4)]
    want = [setting.oracle.rows(text) for text in texts]

    def write(text):
        session = setting.session()
        return np.concatenate([bits(session.forward([token], read=LOGITS).logits) for token in text])

    with ThreadPoolExecutor(4) as pool:
        for got, rows in zip(pool.map(write, texts), want, strict=True):
            np.testing.assert_array_equal(got, rows)


# ---- blocks: the oracle is the block alone, its rows in order, scalar, one thread ----


def block_alone(setting: Setting, context: list[int], blocks: list[list[int]]) -> list[np.ndarray]:
    """Bits of each block's logits, a chain of blocks over the context, one block a forward."""
    want = []
    with level("scalar"):
        session = setting.session(threads=1, max_rows=16)
        if context:
            session.prefill(context)
        for number, block in enumerate(blocks):
            rows = session.forward(block, nodes=[number] * len(block), parents=[number - 1], read=LOGITS)
            want.append(bits(rows.logits))
    return want


@FEWER
@given(setting=settings_of_models, context=token_lists(0, 10), block=token_lists(1, 8), data=st.data())
def test_a_block_has_the_same_bits_in_whatever_order_its_rows_lie(isa, setting, context, block, data):
    (want,) = block_alone(setting, context, [block])
    session = setting.session(max_rows=16)
    if context:
        session.prefill(context)
    decoys = data.draw(token_lists(0, 4))  # a branch beside it, in slots before it
    if decoys:
        session.forward(decoys, nodes=[0] * len(decoys), parents=[-1], rows=())
    order = data.draw(st.permutations(range(len(block))))
    node = 1 if decoys else 0
    rows = session.forward(
        [block[i] for i in order],
        nodes=[node] * len(block),
        parents=[-1],
        positions=[len(context) + i for i in order],
        read=LOGITS,
    )
    assert_rows(rows, want[list(order)])


@FEWER
@given(
    setting=settings_of_models,
    context=token_lists(0, 10),
    blocks=st.lists(token_lists(1, 4), min_size=1, max_size=4),
    data=st.data(),
)
def test_a_chain_of_blocks_has_the_same_bits_however_it_is_split(isa, setting, context, blocks, data):
    want = block_alone(setting, context, blocks)
    session = setting.session(max_rows=16)
    if context:
        session.prefill(context)
    for piece in cut(data.draw, len(blocks), len(blocks)):
        numbers = range(piece.start, piece.stop)
        rows = session.forward(
            [token for number in numbers for token in blocks[number]],
            nodes=[number for number in numbers for _ in blocks[number]],
            parents=[number - 1 for number in numbers],
            read=LOGITS,
        )
        assert_rows(rows, np.concatenate([want[number] for number in numbers]))
    # Kept, the chain of blocks is the context that its last block saw.
    session.keep(range(session.pending))
    with level("scalar"):
        child = setting.session(threads=1, max_rows=16)
        if context:
            child.prefill(context)
        for number, block in enumerate(blocks):
            child.forward(block, nodes=[number] * len(block), parents=[number - 1], rows=())
        after = bits(child.forward([3], parents=[len(blocks) - 1], read=LOGITS).logits)
    assert_rows(session.forward([3], read=LOGITS), after)


@FEWER
@given(
    setting=settings_of_models,
    context=token_lists(0, 10),
    branches=st.lists(token_lists(1, 4), min_size=1, max_size=4),
    data=st.data(),
)
def test_branches_over_the_context_do_not_see_each_other(isa, setting, context, branches, data):
    want = [block_alone(setting, context, [branch])[0] for branch in branches]
    session = setting.session(max_rows=16)
    if context:
        session.prefill(context)
    rows = [(number, i) for number, branch in enumerate(branches) for i in range(len(branch))]
    shuffled = data.draw(st.permutations(rows))  # rows of different nodes lie among one another
    result = session.forward(
        [branches[number][i] for number, i in shuffled],
        nodes=[number for number, _ in shuffled],
        parents=[-1] * len(branches),
        positions=[len(context) + i for _, i in shuffled],
        read=LOGITS,
    )
    assert_rows(result, np.stack([want[number][i] for number, i in shuffled]))


# ---- replace ----


def check_replacing(
    setting: Setting, context: list[int], replace: tuple[int, int], new: list[int], after: list[int]
) -> None:
    """Rows put in the place of others, and rows after them: given singly while all are pending (the oracle), or kept between."""
    want, following = [], []
    positions = [len(context) + len(new) + i for i in range(len(after))]
    with level("scalar"):
        singly = setting.session(threads=1)
        singly.prefill(context)
        for i, token in enumerate(new):
            want.append(bits(singly.forward([token], parents=[i - 1], replace=replace, read=LOGITS).logits))
        for i, (token, position) in enumerate(zip(after, positions, strict=True)):
            rows = singly.forward([token], parents=[len(new) + i - 1], positions=[position], read=LOGITS)
            following.append(bits(rows.logits))

    session = setting.session()
    session.prefill(context)
    assert_rows(session.forward(new, replace=replace, read=LOGITS), np.concatenate(want))
    session.keep(range(len(new)))
    assert session.tokens.tolist() == context[: replace[0]] + new + context[replace[1] :]
    assert_rows(session.forward(after, positions=positions, read=LOGITS), np.concatenate(following))


@FEWER
@given(setting=settings_of_models, context=token_lists(2, 14), after=token_lists(1, 3), data=st.data())
def test_rows_replaced_one_for_one_have_the_same_bits_before_and_after_keep(isa, setting, context, after, data):
    start = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(start + 1, min(len(context), start + 4)))
    check_replacing(setting, context, (start, end), data.draw(token_lists(end - start, end - start)), after)


@pytest.mark.parametrize(
    "replace, count", [((0, 0), 1), ((3, 3), 2), ((3, 4), 3), ((2, 6), 1), ((4, 8), 4), ((8, 8), 2)]
)
def test_rows_that_replace_more_or_fewer_have_the_same_bits_before_and_after_keep(isa, replace, count):
    """More rows than there was room for share positions with the rows behind them: `keep` must not change the order."""
    for format in ("f32", "q4"):
        check_replacing(Setting("plain", format), [0, 1, 2, 3, 4, 5, 1, 2], replace, [5, 4, 3, 2][:count], [1, 2])


@FEWER
@given(setting=settings_of_models, context=token_lists(3, 14), data=st.data())
def test_a_replaced_tail_is_the_text_without_the_old_one(isa, setting, context, data):
    start = data.draw(st.integers(1, len(context) - 1))
    new = data.draw(token_lists(1, 4))
    session = setting.session()
    session.prefill(context)
    want = setting.oracle.rows(context[:start] + new)[start:]
    assert_rows(session.forward(new, replace=(start, len(context)), read=LOGITS), want)
    session.keep(range(len(new)))
    assert_rows(session.forward([0], read=LOGITS), setting.oracle.rows(context[:start] + new + [0])[-1:])


# ---- long contexts: tiles of 128 keys, split over keys up to 4 rows ----

LONG = 2 * 128 + 10


def long_text() -> list[int]:
    return np.random.default_rng(7).integers(0, ALPHABET, LONG).tolist()


@pytest.mark.parametrize("name, format", [*(("plain", format) for format in FORMATS), ("odd", "q8"), ("biased", "f32")])
def test_long_contexts_have_the_same_bits_split_over_keys_or_not(isa, name, format):
    cache = "f32" if format == "f16" else None  # f32 keys: f32 and f16 models; f16 keys: the others
    setting, text = Setting(name, format, 3, cache, 64), long_text()
    want = setting.oracle.rows(text)
    for sizes in ([64] * 4, [5] * 51, [125, 3, 1, 4, 5, 117, 2, 4]):  # one row beside, at and over both tile borders
        session, start = setting.session(capacity=LONG, max_rows=128), 0
        for size in sizes:
            rows = session.forward(text[start : start + size], read=LOGITS)
            assert_rows(rows, want[start : start + size])
            start += size


@pytest.mark.parametrize("format", FORMATS)
def test_keys_that_lie_scattered_over_many_tiles_sum_as_if_in_a_row(isa, format):
    """A path whose rows lie in every other slot of a big tree, under a context that ends just short of a tile."""
    setting, text = Setting("plain", format, 2, None, 128), long_text()
    session = setting.session(capacity=LONG + 8, max_rows=2 * LONG)
    session.prefill(text[:120])
    path = text[120:]
    tokens = [token for own in path for token in (ALPHABET - 1 - own, own)]  # row 2 i is a decoy, row 2 i + 1 the path
    parents = [parent for i in range(len(path)) for parent in ([2 * i - 1] * 2 if i else [-1, -1])]
    rows = session.forward(tokens, parents=parents, read=LOGITS, rows=range(1, len(tokens), 2))
    assert_rows(rows, setting.oracle.rows(text)[120:])
    # Few rows under the same scattered keys: split over tiles.
    following = [1, 2, 3]
    assert_rows(
        session.forward(following, parents=[len(tokens) - 1, len(tokens), len(tokens) + 1], read=LOGITS),
        setting.oracle.rows(text + following)[-3:],
    )
    session.keep(range(1, len(tokens), 2))
    assert_rows(session.forward(following, read=LOGITS), setting.oracle.rows(text + following)[-3:])


def test_rows_on_both_sides_of_a_tile_border_may_share_a_split_pass(isa):
    """Up to four rows, of texts of different lengths: some have one tile of keys, some three."""
    setting, text = Setting("plain", "q4", 4, None, 16), long_text()
    lengths = (1, 127, 128, 260)
    sessions = [setting.session(capacity=300) for _ in lengths]
    for session, length in zip(sessions, lengths, strict=True):
        session.prefill(text[:length])
    results = forward_many([(session, Forward([2], read=LOGITS)) for session in sessions])
    for result, length in zip(results, lengths, strict=True):
        assert_rows(result, setting.oracle.rows([*text[:length], 2])[-1:])


@pytest.mark.parametrize("scale", [1e-7, 1e-4, 1e4])
@pytest.mark.parametrize("format", ["f16", "q4"])
def test_keys_and_values_at_the_ends_of_half_precision_have_the_same_bits(isa, format, scale):
    """Values of about `scale`: subnormal as f16, nearly so, and just below its largest."""
    plan = plan_for(config("plain"))
    made = tensors(plan, 3, format)
    for name, tensor in made.items():
        if name.endswith("input_layernorm.weight"):
            made[name] = Tensor(name, "f32", tensor.shape, tensor.data * np.float32(scale))
    want = None
    for name, threads, sizes in (("scalar", 1, [1] * 12), (isa, 2, [5, 7])):
        with level(name):
            session, start, got = poisoned(Network(plan, made, threads=threads).session(64, max_rows=16)), 0, []
            for size in sizes:
                got.append(bits(session.forward(range(start, start + size), read=LOGITS).logits))
                start += size
        want = np.concatenate(got) if want is None else want
        np.testing.assert_array_equal(np.concatenate(got), want)


def test_the_tree_helper_itself_names_paths_from_the_root():
    tree = Tree([5, 6, 7], [-1, 0, 0])
    assert tree.path(2) == [0, 2] and tree.text(1) == [5, 6] and tree.path(-1) == []


@pytest.mark.parametrize("threads", [16, 63, 64])
def test_more_threads_than_tasks_and_cores_give_the_same_bits(isa, threads):
    """16 and 64: the counters of a stage fill a cache line, and one more."""
    setting = Setting("plain", "q4", threads=threads)
    text = list(range(16))
    want = setting.oracle.rows(text)
    session = setting.session()
    for _ in range(20):
        assert_rows(session.forward(text, read=LOGITS), want)
        session.truncate(0)
