"""Attention in all its ways: windows, caps, slopes, numbers by distance, keys that other rows have stored.  Each against its reference, and law 1."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.models.builder import Builder
from fastdistill.ops import OPS
from fastdistill.ops.attention import attended
from fastdistill.ops.scores import bias_of
from fastdistill.runtime import forward_many
from fastdistill.runtime.forward import Forward
from fastdistill.runtime.forward_pass import ForwardPass, KeySet
from fastdistill.runtime.kv_cache import KVCache
from fastdistill.runtime.native_executor import NativeExecutor
from fastdistill.runtime.network import Network
from fastdistill.runtime.reference_executor import ReferenceExecutor
from fastdistill.runtime.visibility import chain_runs
from tests.plans import FACTS, SLOPES, VOCAB, WAYS, WIDTH, attending, encoder_decoder, layered, text
from tests.runtime.test_executors import assert_within_bounds
from tests.small_models import tensors
from tests.strategies import LOGITS, bits, cut, level, poisoned, trees

FEWER = settings(max_examples=20)
LONG = text(300)
FORMATS = {
    "window": "f32", "long window": "q8", "both sides": "f32", "far to both sides": "q8", "softcap": "f16", "slopes": "bf16", "all": "q4", "distances": "f32", "far distances": "q8",
}  # fmt: skip


@functools.cache
def network(way: str, executor: str = "native", threads: int = 2, layers: int = 2) -> Network:
    plan = layered(attending(**WAYS[way]), layers)
    return Network(plan, tensors(plan, 1, FORMATS[way]), threads=threads, executor=executor)


def session(way, capacity=256, **options):
    made = network(way).session(capacity, **options)
    poisoned(made)
    return made


@functools.cache
def alone(way: str, words: tuple[int, ...]) -> np.ndarray:
    """Bits of the logits, one token a forward, on the scalar level with one thread."""
    with level("scalar"):
        made = network(way, threads=1).session(256)
        return np.concatenate([bits(made.forward([word], read=LOGITS).logits) for word in words])


@pytest.mark.parametrize("way", WAYS)
def test_each_op_agrees_with_the_reference_on_the_native_inputs(isa, way):
    for words, context in ((LONG[:7], LONG[7:9]), (LONG[:3], LONG[3:60]), (LONG[:16], [])):
        assert_within_bounds(network(way), network(way, "reference"), words, context)


@pytest.mark.parametrize("way", WAYS)
def test_native_and_reference_agree_over_a_long_text(isa, way):
    words = LONG[:200]
    got, want = (
        network(way, executor).session(256, 256).forward(words, read=LOGITS).logits
        for executor in ("native", "reference")
    )
    np.testing.assert_allclose(got, want, atol=1e-4 if FORMATS[way] not in ("q8", "q4") else 0.1)


@pytest.mark.parametrize("way", WAYS)
def test_any_split_of_a_long_text_gives_the_same_bits(isa, way):
    """Across both borders of tiles of 128 keys, windowed and not; up to four rows are split over keys."""
    words = LONG[:250]
    want = alone(way, tuple(words))
    for sizes in ([64, 64, 64, 58], [125, 3, 1, 4, 117], [4] * 62 + [2]):
        made, start = session(way, max_rows=128), 0
        for size in sizes:
            got = made.forward(words[start : start + size], read=LOGITS).logits
            np.testing.assert_array_equal(bits(got), want[start : start + size])
            start += size


@pytest.mark.parametrize("way", ["both sides", "far to both sides"])
@pytest.mark.parametrize("positions", ["in order", "gaps"])
def test_rows_that_see_each_other_see_so_far_to_either_side(isa, way, positions):
    """Blocks of 200 rows behind 60, and of 3: against the reference, and the scalar level's bits; who is too far changes nothing."""
    words, places = LONG[:263], np.arange(60, 263)
    if positions == "gaps":
        places[100:] += 40

    def run(made, words):
        session = made.session(256, max_rows=256)
        session.prefill(words[:60])
        one = dict(parents=[-1, 0], nodes=[0] * 200 + [1] * 3, positions=places.tolist())
        return session.forward(words[60:263], read=LOGITS, **one).logits

    got = run(network(way), words)
    want = run(network(way, "reference"), words)
    np.testing.assert_allclose(got, want, atol=1e-4 if FORMATS[way] != "q8" else 0.1)
    with level("scalar"):
        np.testing.assert_array_equal(bits(run(network(way, threads=1), words)), bits(got))
    how, other = WAYS[way], [*words[:160], (words[160] + 1) % 77, *words[161:]]
    changed = (bits(run(network(way, layers=1), other)) != bits(run(network(way, layers=1), words))).any(axis=1)
    distance = places[100] - places  # of row 160 as the rows see it
    sees = (distance > -how["window"]) & (distance <= how["ahead"])
    assert np.flatnonzero(changed).tolist() == np.flatnonzero(sees).tolist()


@FEWER
@given(
    way=st.sampled_from(["window", "slopes", "all", "distances", "far distances"]),
    context=st.integers(0, 12),
    tree=trees(10),
    data=st.data(),
)
def test_a_row_of_a_tree_has_the_bits_of_its_path(isa, way, context, tree, data):
    made, words = session(way, max_rows=16), LONG[:context]
    if words:
        made.prefill(words)
    want = np.stack([alone(way, (*words, *tree.text(row)))[-1] for row in range(len(tree.tokens))])
    for piece in cut(data.draw, len(tree.tokens), 16):
        got = made.forward(tree.tokens[piece], parents=tree.parents[piece], read=LOGITS).logits
        np.testing.assert_array_equal(bits(got), want[piece])
    path = tree.path(len(tree.tokens) - 1)
    made.keep(path)
    after = (*words, *tree.text(len(tree.tokens) - 1), 1, 2)
    np.testing.assert_array_equal(bits(made.forward([1, 2], read=LOGITS).logits), alone(way, after)[-2:])


@pytest.mark.parametrize("way", ["window", "all", "far distances"])
def test_forked_truncated_and_loaded_sessions_know_their_positions(isa, way, tmp_path):
    words = LONG[:20]
    first = session(way)
    first.prefill(words)
    first.save(tmp_path / "s")
    others = [first.fork(), network(way).load_session(tmp_path / "s", 256)]
    first.truncate(12)
    for made, held in ((first, words[:12]), *((other, words) for other in others)):
        got = made.forward([1, 2, 3], read=LOGITS).logits
        np.testing.assert_array_equal(bits(got), alone(way, (*held, 1, 2, 3))[-3:])


@pytest.mark.parametrize("way", WAYS)
def test_sequences_share_a_pass_as_if_alone(isa, way):
    lengths = (1, 6, 140, 200)
    made = [session(way) for _ in lengths]
    for each, length in zip(made, lengths, strict=True):
        each.prefill(LONG[:length])
    results = forward_many([(each, Forward([2], read=LOGITS)) for each in made])
    for result, length in zip(results, lengths, strict=True):
        np.testing.assert_array_equal(bits(result.logits), alone(way, (*LONG[:length], 2))[-1:])


@pytest.mark.parametrize("executor", ["native", "reference"])
def test_a_window_sees_so_many_positions_and_no_more(executor):
    """One layer: what lies before the window changes no bit, what is in it does."""
    plan = layered(attending(window=5), 1)
    made = Network(plan, tensors(plan, 1), executor=executor)

    def last(words):
        return bits(made.session(32).forward(words, rows="last", read=LOGITS).logits)

    words = LONG[:12]
    for changed, same in ((6, True), (7, False)):
        other = [(word + 1) % 77 if i == changed else word for i, word in enumerate(words)]
        assert np.array_equal(last(words), last(other)) == same


@pytest.mark.parametrize("positions", [[0, 1, 2, 10, 11, 12], [0, 4, 5, 5, 9, 9]])
def test_a_window_counts_positions_not_rows(isa, positions):
    """A gap in the positions leaves the rows behind it alone; equal positions are seen both."""
    words, how = LONG[:6], dict(positions=positions, read=LOGITS)
    got, want = (
        network("window", executor).session(32).forward(words, **how).logits for executor in ("native", "reference")
    )
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("way", ["all", "distances"])
def test_branches_and_blocks_with_positions_of_their_own(isa, way):
    """Rows of a node see each other, whatever their positions: those behind them too."""
    how = dict(nodes=[0, 0, 0, 1, 1], parents=[-1, 0], positions=[9, 2, 5, 11, 4], read=LOGITS)
    got, want = [], []
    for executor, into in (("native", got), ("reference", want)):
        made = network(way, executor).session(32)
        made.prefill(LONG[:4])
        into.append(made.forward(LONG[4:9], **how).logits.copy())
    np.testing.assert_allclose(got[0], want[0], atol=0.1)  # q4: a code may flip


# How distances of 16 keys can go on: all by 1, not at all, by 1 but for a gap, or twice and then a gap, so that the ends are 15 apart.
POSITIONS = {
    "in sequence": list(range(40)),
    "all at one place": [7] * 40,
    "a gap": [*range(9), *range(30, 61)],
    "twice and a gap": [0, 0, *range(2, 40)],
    "far apart": list(range(0, 240, 6)),
}


@pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)
@pytest.mark.parametrize("reach", [1, 15, 16, 60])
def test_numbers_by_distance_wherever_rows_stand(isa, reach, positions):
    """Of rows that see each other, those before and behind: as the reference, whatever the cache held before, and as on the scalar level."""
    plan = layered(attending(distances="distances", reach=reach), 1)
    made, how = tensors(plan, 1), dict(nodes=[0] * 40, parents=[-1], positions=positions, read=LOGITS)
    native, reference, oracle = (
        Network(plan, made, threads=threads, executor=executor)
        for executor, threads in (("native", 2), ("reference", 1), ("native", 1))
    )
    got = poisoned(native.session(64)).forward(LONG[:40], **how).logits
    np.testing.assert_allclose(got, reference.session(64).forward(LONG[:40], **how).logits, atol=1e-4)
    with level("scalar"):
        want = bits(oracle.session(64).forward(LONG[:40], **how).logits)
    np.testing.assert_array_equal(bits(got), want)


def test_rows_that_all_see_each_other_have_the_same_bits_in_any_company(isa):
    """As encoders run: several sentences in a pass, longer than the reach and than a tile of keys."""
    sizes = (3, 140, 30)

    def block(size):
        return Forward(LONG[:size], nodes=[0] * size, parents=[-1], read=LOGITS)

    with level("scalar"):
        alone_ = network("distances", threads=1)
        want = [bits(alone_.session(256, 256).run(block(size)).logits) for size in sizes]
    results = forward_many([(session("distances", max_rows=256), block(size)) for size in sizes])
    for result, bits_alone in zip(results, want, strict=True):
        np.testing.assert_array_equal(bits(result.logits), bits_alone)


def test_the_reference_of_numbers_by_distance():
    """Two heads with a reach of 1: what is farther has the number of 1 or -1."""
    table, distances = np.array([1, 2, 3, 10, 20, 30], np.float32), np.array([-9, -1, 0, 1, 2])
    np.testing.assert_array_equal(bias_of(None, distances, table, 1), [[1, 1, 2, 3, 3], [10, 10, 20, 30, 30]])


def test_the_reference_of_attention_in_all_ways():
    """Two heads, two keys, by hand: scores s, then c tanh(s / c), then slope times distance, then softmax."""
    q, keys = np.array([[1.0], [2.0]]), np.array([[[1.0], [3.0]]])
    values = np.array([[[0.0], [1.0]]])
    s = np.array([[1.0, 3.0], [2.0, 6.0]])
    s = 2 * np.tanh(s * 0.5 / 2) + np.array([[0.1], [-0.2]]) * np.array([-1.0, 0.0])
    want = np.exp(s[:, 1]) / np.exp(s).sum(axis=1)
    got = attended(q, keys, values, 0.5, 2.0, np.outer([0.1, -0.2], [-1.0, 0.0]))
    np.testing.assert_allclose(got[:, 0], want, rtol=1e-14)
    assert (
        SLOPES.dtype == np.float32
        and {"window", "softcap", "slopes", "reach", "key_set"} <= OPS["attention"].constants.keys()
    )


@pytest.mark.parametrize("format", ["f32", "q4"])
def test_layers_may_have_heads_of_their_own(isa, format, tmp_path):
    """One key head, then three, then one in a window: pages hold layers of different sizes."""
    b = Builder()
    x = b.embedding("embedding", VOCAB, WIDTH)
    for i, how in enumerate(({}, {"kv_heads": 3}, {"window": 4})):
        with b.layer(i, x):
            x = attending(**how)(b, x, f"layers.{i}")
    hidden = b.read(x)
    plan = b.plan(x, {"logits": b.head(hidden, "head", VOCAB), "hidden": hidden}, {}, **FACTS)
    assert plan.cache_layers == ((1, 14), (3, 14), (1, 14))
    made = tensors(plan, 1, format)
    native, reference = (Network(plan, made, threads=2, executor=name) for name in ("native", "reference"))
    assert_within_bounds(native, reference, LONG[:7], LONG[7:20])
    session = poisoned(native.session(128))
    whole = bits(session.forward(LONG[:90], read=LOGITS).logits)
    session.truncate(70)
    session.save(tmp_path / "s")
    for other in (session.fork(), native.load_session(tmp_path / "s", 128)):
        np.testing.assert_array_equal(bits(other.forward(LONG[70:90], read=LOGITS).logits), whole[70:])


# ---- keys that other rows have stored ----


class Translation:
    """A source that is encoded, and a target that is decoded over it, at the level of passes."""

    def __init__(self, made: Network, rows: int = 64) -> None:
        self.plan = made.plan
        if made.weights.__class__.__name__ == "PackedWeights":
            self.executor = NativeExecutor(made.plan, made.weights, rows, made.threads)
        else:
            self.executor = ReferenceExecutor(made.plan, made.weights)
        dtype = made.cache_dtype
        self.own, self.encode, self.cross = (KVCache(made.plan, 64, dtype, name) for name in ("own", "encode", "cross"))
        for cache in (self.own, self.encode, self.cross):
            cache.reserve(0, 64)
        self.length = self.source = 0

    def seen(self, rows: int, slots: int, cache: KVCache, first: int = 0) -> KeySet:
        """All rows see the first `slots` slots, as one node; they are stored from `first` on."""
        runs, offsets = np.array([[0, slots]], np.int32), np.array([0, 1])
        return KeySet(np.arange(first, first + rows, dtype=np.int32), np.zeros(rows, np.int32), runs, offsets, [cache])

    def encoded(self, words: list[int]) -> np.ndarray:
        n = self.source = len(words)
        own = self.seen(n, 1, self.own)
        outcome = self.executor.run(
            ForwardPass(
                **vars(own), tokens=np.array(words, np.int32), inputs=None, positions=np.arange(n, dtype=np.int32),
                sequences=np.zeros(n, np.int32), read_rows=np.array([], np.int32), segments=("encode",), want_outputs=True,
                others={"encode": self.seen(n, n, self.encode), "cross": self.seen(n, n, self.cross)},
            )
        )  # fmt: skip
        assert outcome.stream.shape == (0, WIDTH) and set(outcome.outputs) == {"encoded"}
        return outcome.outputs["encoded"].copy()

    def decoded(self, words: list[int], layers=(0, 2), stream=None) -> tuple[np.ndarray, np.ndarray]:
        n, first = len(words), self.length
        runs, offsets = chain_runs(first, n)
        slots = np.arange(first, first + n, dtype=np.int32)
        outcome = self.executor.run(
            ForwardPass(
                slots=slots, nodes=np.arange(n, dtype=np.int32), runs=runs, run_offsets=offsets, caches=[self.own],
                tokens=np.array(words, np.int32), inputs=None, positions=slots, sequences=np.zeros(n, np.int32),
                read_rows=np.arange(n, dtype=np.int32), want_logits=True, want_outputs=True, first_layer=layers[0], end_layer=layers[1],
                stream=stream, others={"cross": self.seen(n, self.source, self.cross)},
            )
        )  # fmt: skip
        assert set(outcome.outputs) == {"hidden"}
        self.length += n if layers[1] == 2 else 0
        return outcome.logits.copy(), outcome.stream.copy()


@functools.cache
def translator(format: str, executor: str = "native", threads: int = 2) -> Network:
    plan = encoder_decoder()
    return Network(plan, tensors(plan, 1, format), threads=threads, executor=executor)


def test_the_plan_says_what_each_key_set_holds():
    plan = encoder_decoder()
    assert plan.key_sets == {"own": ((1, 14), (1, 14)), "encode": ((1, 14), (1, 14)), "cross": ((2, 14), (2, 14))}
    assert plan.cache_layers == plan.key_sets["own"] and plan.layers == ("layer 0", "layer 1")


@pytest.mark.parametrize("format", ["f32", "q8", "q4"])
def test_an_encoder_and_its_decoder_agree_with_the_reference(isa, format):
    results = []
    for executor in ("native", "reference"):
        made = Translation(translator(format, executor))
        results.append((made.encoded(text(11)), made.decoded(text(5, 2))[0]))
    bound = 1e-4 if format == "f32" else 0.1
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want, atol=bound)


@pytest.mark.parametrize("format", ["f32", "q4"])
def test_a_decoder_row_depends_on_what_it_sees_alone(isa, format):
    """One at a time on the scalar level, or several on this one, in layers or at once; another source changes it."""
    with level("scalar"):
        alone_ = Translation(translator(format, threads=1))
        encoded = alone_.encoded(text(11))
        want = np.concatenate([alone_.decoded([word])[0] for word in text(7, 2)])
    made = Translation(translator(format))
    np.testing.assert_array_equal(bits(made.encoded(text(11))), bits(encoded))
    got = [made.decoded(text(7, 2)[:3])[0]]
    words = text(7, 2)[3:]
    _, stream = made.decoded(words, (0, 1))
    got.append(made.decoded(words, (1, 2), stream)[0])
    np.testing.assert_array_equal(bits(np.concatenate(got)), bits(want))
    other = Translation(translator(format))
    other.encoded([*text(10), 3])
    assert not np.array_equal(other.decoded([text(7, 2)[0]])[0], want[:1])
