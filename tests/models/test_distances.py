"""Numbers by distance of a bucket's table: transformers' buckets, and the same numbers whatever the table is stored in."""

from __future__ import annotations

import numpy as np
import pytest

from fastdistill.checkpoint import Tensor, quantize_tensor
from fastdistill.models.builder import Builder
from fastdistill.models.distances import bucket_reach, by_distance, relative_position_bucket
from fastdistill.models.source import stored
from fastdistill.runtime.network import Network
from tests.plans import FACTS, VOCAB, WIDTH, attending
from tests.small_models import tensors
from tests.strategies import LOGITS, bits

# (bidirectional, num_buckets, max_distance): T5's encoder and decoder, MPNet's; UDOP's and LongT5's; small, odd, and few.
KINDS = [
    (True, 32, 128), (False, 32, 128), (True, 64, 256), (False, 32, 64), (True, 10, 20), (False, 7, 9), (True, 4, 3), (False, 2, 2),
    (False, 2, 100), (True, 32, 1000),
]  # fmt: skip


def test_near_distances_have_buckets_of_their_own_and_far_ones_share():
    """T5's: 8 exact ones a direction, then 8 whose borders are 8 * 16^(k / 8), so 8, 11.3, 16, 22.6, 32, 45.3, 64, 90.5."""
    borders = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]
    far = np.arange(200)
    want = np.searchsorted(borders, far, side="right") - 1
    np.testing.assert_array_equal(relative_position_bucket(-far, True, 32, 128), want)
    np.testing.assert_array_equal(relative_position_bucket(far[1:], True, 32, 128), want[1:] + 16)
    assert bucket_reach(True, 32, 128) == 91
    decoder = relative_position_bucket(np.arange(-200, 50), False, 32, 128)
    assert (decoder[200:] == 0).all() and decoder[0] == 31 and (np.diff(decoder) <= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_beyond_the_reach_all_share_a_bucket_and_before_it_not(kind):
    reach = bucket_reach(*kind)
    buckets = relative_position_bucket(np.arange(-5000, 5001), *kind)
    assert len({*buckets[: 5001 - reach]}) == 1 and len({*buckets[5000 + reach :]}) == 1
    assert 1 <= reach <= kind[2] and buckets[5000 - reach] != buckets[5001 - reach]
    assert buckets.min() == 0 and buckets.max() == kind[1] - 1


@pytest.mark.parametrize("format", ["f32", "f16", "bf16"])
def test_a_flat_table_has_each_head_by_itself(format):
    table = np.random.default_rng(0).standard_normal((32, 3)).astype(np.float32)
    tensor = quantize_tensor(Tensor("bias", "f32", table.shape, table), format)
    source, reach = by_distance(stored("bias", table.shape), True, 128)
    assert (
        source.shape == (3 * (2 * reach + 1),)
        and source.stored == {"bias": (32, 3)}
        and source.format({"bias": format}) == "f32"
    )
    flat, rounded = source.tensor({"bias": tensor}).to_float32().reshape(3, -1), tensor.to_float32()
    for distance in range(-reach, reach + 1):
        (bucket,) = relative_position_bucket(np.array([distance]), True, 32, 128)
        np.testing.assert_array_equal(flat[:, reach + distance], rounded[bucket])


@pytest.mark.parametrize("format", ["f32", "f16", "bf16"])
def test_layers_share_what_is_made_of_a_stored_table(isa, format):
    """Over a text beyond the reach: the same bits as of that vector, stored as it is."""
    source, reach = by_distance(stored("layers.0.bias", (10, 3)), True, 16)

    def plan(made_of):
        b = Builder()
        if made_of:
            b.made_of("distances", source)
        x = b.embedding("embedding", VOCAB, WIDTH)
        for i in range(2):
            with b.layer(i, x):
                x = attending(distances="distances", reach=reach)(b, x, f"layers.{i}")
        read = b.read(x)
        return b.plan(x, {"logits": b.head(read, "head", VOCAB), "hidden": read}, {}, **FACTS)

    numbers = np.random.default_rng(2).standard_normal((10, 3)).astype(np.float32)
    made = tensors(plan(False), 1)
    made["layers.0.bias"] = quantize_tensor(Tensor("layers.0.bias", "f32", (10, 3), numbers), format)
    made["distances"] = source.tensor(made)
    got, want = (
        bits(Network(plan(made_of), made, threads=2).session(64).forward(range(50), read=LOGITS).logits)
        for made_of in (True, False)
    )
    assert reach < 16
    np.testing.assert_array_equal(got, want)


@pytest.mark.peers
@pytest.mark.parametrize("kind", KINDS)
def test_buckets_are_those_of_transformers(kind):
    torch, t5 = pytest.importorskip("torch"), pytest.importorskip("transformers.models.t5.modeling_t5")
    distances, (bidirectional, num_buckets, max_distance) = np.arange(-3000, 3001), kind
    theirs = t5.T5Attention._relative_position_bucket(
        torch.from_numpy(distances), bidirectional, num_buckets, max_distance
    )
    np.testing.assert_array_equal(relative_position_bucket(distances, *kind), theirs.numpy())
    if bidirectional:
        mpnet = pytest.importorskip("transformers.models.mpnet.modeling_mpnet")
        theirs = mpnet.MPNetEncoder.relative_position_bucket(torch.from_numpy(distances), num_buckets, max_distance)
        np.testing.assert_array_equal(relative_position_bucket(distances, *kind), theirs.numpy())
