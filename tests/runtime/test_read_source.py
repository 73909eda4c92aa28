"""A source that an encoder has read: what its rows give, who shares it, and what a session is without one."""

from __future__ import annotations

import numpy as np
import pytest

from fastdistill.errors import ArgumentError, CapacityError, CheckpointError, UnsupportedError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.models import plan_for
from fastdistill.runtime import Profile, Read, forward_many
from fastdistill.runtime.forward import Forward
from fastdistill.runtime.network import Network
from fastdistill.runtime.source import encode
from tests.families import SOURCED, family_config, network
from tests.small_models import tensors
from tests.strategies import LOGITS, SOURCE, bits, level, poisoned, sourced

TEXT = [2, 5, 1, 0, 3, 3, 1]
OTHER = [4, 4, 1, 0, 3, 5, 5, 2, 1, 0, 0, 1, 2, 3, 4, 5, 5, 1, 1]
formats = pytest.mark.parametrize("format", ["f32", "q8", "q4"])


def session(name: str, format: str = "f32", threads: int = 2, source=SOURCE, **options):
    made = network(name, format, threads=threads).session(**{"capacity": 64} | options)
    made.read_source(source)
    return made


@formats
@pytest.mark.parametrize("name", SOURCED)
def test_both_executors_agree(name, format):
    found = []
    for executor in ("native", "reference"):
        made = network(name, format, executor).session(64)
        made.read_source(OTHER)
        found.append(made.forward(TEXT, read=LOGITS).logits)
    bound = 1e-4 if format == "f32" else 0.15
    np.testing.assert_allclose(*found, atol=bound * np.abs(found[1]).max())


@formats
@pytest.mark.parametrize("name", SOURCED)
def test_a_source_has_the_same_bits_on_any_level_and_number_of_threads(isa, name, format):
    with level("scalar"):
        want = session(name, format, 1, OTHER)
        logits = bits(want.forward(TEXT, read=LOGITS).logits)
    for threads in (1, 3):
        got = poisoned(session(name, format, threads, OTHER))
        for one, other in zip(
            *(each.encoded.cache.read_all(np.arange(len(OTHER))) for each in (got, want)), strict=True
        ):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(bits(got.forward(TEXT, read=LOGITS).logits), logits)


@pytest.mark.parametrize("name", SOURCED)
def test_a_row_sees_all_of_its_source_and_of_no_other(isa, name):
    """Sequences of several sources share a pass; every token of a source counts."""
    sources = [SOURCE, OTHER, SOURCE[:1], [*SOURCE[:-1], 5], SOURCE[::-1]]
    alone = [bits(session(name, source=source).forward(TEXT, read=LOGITS).logits) for source in sources]
    assert len({each.tobytes() for each in alone}) == len(sources)
    requests = [(session(name, source=source), Forward(TEXT, read=LOGITS)) for source in sources]
    for rows, want in zip(forward_many(requests), alone, strict=True):
        np.testing.assert_array_equal(bits(rows.logits), want)
    again = [(one, Forward([1], read=LOGITS)) for one, _ in requests]
    for rows, source in zip(forward_many(again), sources, strict=True):
        want = session(name, source=source).forward([*TEXT, 1], read=LOGITS).logits[-1:]
        np.testing.assert_array_equal(bits(rows.logits), bits(want))


def long_network(executor: str = "native", **changes) -> Network:
    config = family_config("bart", max_position_embeddings=1100, **changes)
    plan = plan_for(config)
    return Network(plan, tensors(plan), threads=2, executor=executor)


def test_a_source_longer_than_a_forward_is_read_at_once(isa):
    """More rows than sessions' executors have; the last token changes what the first one gives."""
    made, words = long_network(), (np.arange(1100) * 7 % 83).astype(np.int32)
    found = []
    for length in (256, 257, 600, 1100):
        one = made.session(16)
        one.read_source(words[:length])
        found.append(bits(one.forward(TEXT, read=LOGITS).logits).tobytes())
    assert len(set(found)) == len(found)
    if isa == "avx2":
        reference = long_network("reference").session(16)
        reference.read_source(words)
        want = reference.forward(TEXT, read=LOGITS).logits
        got = np.frombuffer(found[-1], np.float32).reshape(want.shape)
        np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


def test_a_session_keeps_its_source_while_it_is_the_same():
    one = session("bart")
    one.forward(TEXT)
    assert not one.read_source(SOURCE) and one.length == len(TEXT)
    held = one.encoded
    assert one.read_source(OTHER) and one.length == 0 and one.source.tolist() == OTHER
    with pytest.raises(ArgumentError):
        one.read_source([])
    assert one.source.tolist() == OTHER and one.encoded is not held


@formats
@pytest.mark.parametrize("name", SOURCED)
def test_sources_that_are_read_together_have_the_bits_that_they_have_alone(isa, name, format):
    sources = [np.array(words, np.int32) for words in (SOURCE, OTHER, SOURCE[:1], OTHER[::-1])]
    made = network(name, format)
    for one, source in zip(encode(made, sources, "f32"), sources, strict=True):
        (alone,) = encode(made, [source], "f32")
        for got, want in zip(*(each.cache.read_all(np.arange(len(source))) for each in (one, alone)), strict=True):
            np.testing.assert_array_equal(got, want)


def test_sessions_of_one_source_share_it_as_long_as_one_holds_it():
    made = network("marian")
    one, other = session("marian"), session("marian")
    assert one.encoded is other.encoded and session("marian", cache="f16").encoded is not one.encoded
    held = len(made._sources)
    del one, other
    assert len(made._sources) < held
    without, with_one = made.session(64), session("marian")
    assert with_one.nbytes > without.nbytes == 0


@pytest.mark.parametrize("name", SOURCED)
def test_forks_go_on_over_the_same_source(isa, name):
    want = bits(session(name).forward(TEXT, read=LOGITS).logits)
    one = sourced(session(name))
    one.forward(TEXT[:3])
    first, second = one.fork(), one.fork()
    one.read_source(OTHER)  # theirs is what it was
    for fork in (first, second):
        np.testing.assert_array_equal(bits(fork.forward(TEXT[3:], read=LOGITS).logits), want[3:])
    tree = second.forward([1, 2, 1], parents=[-1, 0, -1], read=LOGITS)
    assert second.source.tolist() == SOURCE and len(tree.logits) == 3


@pytest.mark.parametrize("name", SOURCED)
def test_a_saved_session_has_its_source(tmp_path, name):
    made = network(name)
    one = session(name)
    one.forward(TEXT[:4])
    one.save(tmp_path / "s")
    again = made.load_session(tmp_path / "s", 64)
    assert again.source.tolist() == SOURCE and again.tokens.tolist() == TEXT[:4]
    want = session(name).forward(TEXT, read=LOGITS).logits[4:]
    np.testing.assert_array_equal(bits(again.forward(TEXT[4:], read=LOGITS).logits), bits(want))
    made.session(8).save(tmp_path / "none")
    assert made.load_session(tmp_path / "none").source is None
    with pytest.raises(CheckpointError, match="is no session"):
        network("llama").load_session(tmp_path / "s")


def test_rows_without_a_source_are_refused():
    one = network("bart").session(16)
    assert one.source is None
    with pytest.raises(ArgumentError, match=r"attend to a source, and this session has none: session.read_source"):
        one.forward([1])
    assert one.length == 0
    results = forward_many([(one, Forward([1])), (session("bart"), Forward([1]))], return_errors=True)
    assert isinstance(results[0], ArgumentError) and results[1].statistics is not None


@pytest.mark.parametrize(
    ("source", "error", "text"),
    [
        ([], ArgumentError, "source"),
        ([83], ArgumentError, r"source\[0\] must lie in 0\.\.82, got 83"),
        ([1, -1], ArgumentError, r"source\[1\] must lie in 0\.\.82, got -1"),
        ("words", ArgumentError, "source"),
        ([[1]], ArgumentError, "source"),
        ([1] * 97, CapacityError, r"the source has 97 tokens, more than the 96 .*max_position_embeddings"),
    ],
)
def test_what_is_no_source_is_refused(source, error, text):
    with pytest.raises(error, match=text):
        network("bart").session(16).read_source(source)


def test_models_without_an_encoder_read_no_source():
    with pytest.raises(UnsupportedError, match=r"this model \(llama\) has no encoder"):
        network("llama").session(16).read_source([1])


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_text_that_goes_on_by_itself_has_the_same_tokens(isa, temperature):
    """And its forwards are counted with the source's keys as they are."""
    read = Read(sampler=Sampler(temperature, seed=5), banned=np.array([3, 7], np.int32))
    one, other = session("marian", capacity=48), session("marian", capacity=48)
    with Profile() as profile:
        once = one.run(Forward([2], ahead=20, read=read)).tokens.tolist()
    token, each = 2, []
    with Profile() as apart:
        for _ in range(21):
            token = int(other.forward([token], read=read).tokens[0])
            each.append(token)
    assert once == each and not {3, 7} & set(each)
    assert profile.decode.forwards == apart.decode.forwards == 21
    moved = ({name: stage.bytes for name, stage in each.decode.stages.items()} for each in (profile, apart))
    assert next(moved) == next(moved)
