"""Windows that forget: the bits are those of a session that keeps everything, and the memory is bounded."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill import tasks
from fastdistill.api import Model
from fastdistill.checkpoint.safetensors_file import Stored, read_safetensors, write_safetensors
from fastdistill.decode.engine import Engine
from fastdistill.errors import CheckpointError, ForgottenError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.models.builder import Builder
from fastdistill.models.plan import Plan
from fastdistill.options import resolved
from fastdistill.runtime import kv_cache
from fastdistill.runtime.forward import Forward
from fastdistill.runtime.forward_many import forward_many
from fastdistill.runtime.kv_cache import PAGE
from fastdistill.runtime.network import Network
from fastdistill.runtime.read import Read
from fastdistill.runtime.session import Session
from tests.plans import FACTS, VOCAB, WIDTH, attending, text
from tests.small_models import tensors
from tests.strategies import LOGITS, bits, poisoned, trees

LONG = text(1200)
DRAWING = Read(sampler=Sampler())
ROWS = 32  # of a forward
# Windows of the layers; 0: none. Mistral, Gemma 2, and two windows that pages border on.
KEEPS = 1 << 30  # slack of a session that forgets nothing
LAYERS = {"local": (5, 5), "mixed": (0, 40, 0, 40), "borders": (PAGE, 1, 2 * PAGE + 1), "last": (130, 0)}


def windowed(windows: tuple[int, ...], causal: bool = True) -> Plan:
    b = Builder()
    x = b.embedding("embedding", VOCAB, WIDTH)
    for i, window in enumerate(windows):
        with b.layer(i, x):
            x = attending(window=window, kv_heads=3 if i == 1 else 1)(b, x, f"layers.{i}")
    hidden = b.read(x)
    facts = FACTS | {"max_positions": 2048}
    return b.plan(x, {"logits": b.head(hidden, "head", VOCAB), "hidden": hidden}, {}, causal=causal, **facts)


@functools.cache
def network(name: str, executor: str = "native", causal: bool = True) -> Network:
    plan = windowed(LAYERS[name], causal)
    return Network(plan, tensors(plan, 1, "q8"), threads=2, executor=executor)


def fresh(name: str, executor: str = "native") -> Session:
    made = network(name, executor).session(2048, max_rows=ROWS)
    return poisoned(made) if executor == "native" else made


@contextlib.contextmanager
def slack(positions: int):
    """Sessions that keep so many positions before a window; KEEPS: everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kv_cache, "SLACK", positions)
        yield


def forgotten(session: Session) -> int:
    """Tokens that some layers have forgotten."""
    return max(cache.forgotten for cache in session.caches.values())


def test_layers_of_one_window_are_a_key_set():
    plan = windowed((0, 40, 7, 40))
    assert plan.windows == {"own": 0, "window 40": 40, "window 7": 7}
    assert plan.key_sets == {"own": ((1, 14),), "window 40": ((3, 14), (1, 14)), "window 7": ((1, 14),)}
    assert sorted(plan.cache_layers) == [(1, 14)] * 3 + [(3, 14)]


# ---- law 1 ----

EVENTS = st.one_of(
    st.tuples(st.just("chain"), st.integers(1, ROWS)),
    st.tuples(st.just("prefill"), st.integers(1, 150)),
    st.tuples(st.just("tree"), trees(8)),
    st.tuples(st.just("block"), st.integers(1, 6)),
    st.tuples(st.just("replace"), st.tuples(st.integers(0, 5), st.integers(1, 5))),
    st.tuples(st.just("gap"), st.integers(1, 90)),
    st.tuples(st.just("layers"), st.integers(1, 6)),
    st.tuples(st.just("cut"), st.integers(1, 8)),
    st.tuples(st.just("fork"), st.none()),
    st.tuples(st.just("file"), st.none()),
    st.tuples(st.just("ahead"), st.integers(1, 70)),
)


def happen(session: Session, event, path) -> tuple[Session, list[np.ndarray]]:
    """One thing that callers do; the session that they go on with, and bits that it gave."""
    kind, how = event
    base = session.length
    words = (LONG[base % 700 :] + LONG)[:200]
    gave: list[np.ndarray] = []
    if kind == "chain":
        gave.append(session.forward(words[:how], read=LOGITS).logits)
    elif kind == "prefill":
        gave.append(session.prefill(np.array(words[:how]), LOGITS).logits)
    elif kind == "tree":
        gave.append(session.forward(how.tokens, parents=how.parents, read=LOGITS).logits)
        gave.append(session.forward([1], parents=[0], read=LOGITS).logits)
        session.keep(how.path(len(how.tokens) - 1))
    elif kind == "block":
        gave.append(session.forward(words[:how], nodes=[0] * how, parents=[-1], read=LOGITS).logits)
        session.keep(range(how))
    elif kind == "replace":
        start, end = max(base - how[0] - 2, 0), max(base - how[0], 0)
        gave.append(session.forward(words[: how[1]], replace=(start, end), read=LOGITS).logits)
        session.keep(range(how[1]))
    elif kind == "gap":
        next_position = session.context.next_position(base)
        gave.append(
            session.forward(words[:2], positions=[next_position + how, next_position + 2 * how], read=LOGITS).logits
        )
    elif kind == "layers":
        gave.append(session.forward(words[:how], layers=(0, 1), read=LOGITS).logits)
        gave.append(session.forward(layers=(1, session.network.plan.num_layers), read=LOGITS).logits)
        session.keep(range(how))
    elif kind == "cut":
        session.truncate(max(base - how, 0))
    elif kind == "fork":
        session = session.fork()
    elif kind == "file":
        session.save(path)
        session = session.network.load_session(path, session.capacity, session.max_rows)
    elif session.runs_ahead:
        rows = session.run(Forward(words[:1], ahead=how, read=DRAWING))
        gave.append(rows.statistics.top)
    return session, gave


@settings(max_examples=40)
@given(
    name=st.sampled_from([*LAYERS]), first=st.integers(1, 400), events=st.lists(EVENTS, max_size=10),
    positions=st.sampled_from([0, PAGE]),
)  # fmt: skip
def test_it_gives_the_bits_of_a_session_that_forgets_nothing(isa, tmp_path_factory, name, first, events, positions):
    path = tmp_path_factory.getbasetemp() / "windows.session"
    session, twin = fresh(name), fresh(name)
    for event in [("prefill", first), *events]:
        before = session.length, forgotten(session)
        with slack(positions):
            try:
                session, got = happen(session, event, path)
            except ForgottenError:  # only where it reaches back
                assert event[0] in ("cut", "replace") and session.pending == 0
                assert (session.length, forgotten(session)) == before
                continue
        with slack(KEEPS):
            twin, want = happen(twin, event, path)
        assert session.tokens.tolist() == twin.tokens.tolist()
        for one, other in zip(got, want, strict=True):
            np.testing.assert_array_equal(bits(one), bits(other))
    assert forgotten(twin) == 0
    with slack(0):
        session.prefill(LONG[:ROWS])
        if name == "local" and session.length > 3 * PAGE + ROWS:
            assert forgotten(session) >= session.length - 2 * PAGE - 2 * ROWS - 180  # gaps


@pytest.mark.parametrize("name", LAYERS)
def test_the_reference_forgets_as_well(name):
    """Native beside reference, and one more forgetful: pages are forgotten and used again."""
    gave = []
    for executor, positions in (("native", 0), ("reference", 0), ("reference", KEEPS)):
        with slack(positions):
            session = fresh(name, executor)
            session.prefill(LONG[:300])
            gave.append(session.prefill(LONG[300:330], LOGITS).logits)
            assert (forgotten(session) > 0) == (positions == 0)
    np.testing.assert_array_equal(bits(gave[1]), bits(gave[2]))
    np.testing.assert_allclose(gave[0], gave[1], atol=0.1)


def test_several_sequences_share_a_pass(isa):
    """Each with another number of forgotten pages, and one with a tree."""
    lengths, name = (3, 100, 260, 700), "mixed"
    with slack(KEEPS):
        want = []
        for length in lengths:
            session = fresh(name)
            session.prefill(LONG[:length])
            want.append(bits(session.forward([7, 8], parents=[-1, -1], read=LOGITS).logits))
    sessions = [fresh(name) for _ in lengths]
    for session, length in zip(sessions, lengths, strict=True):
        session.prefill(LONG[:length])
    asked = [Forward([7, 8], parents=[-1, -1], read=LOGITS) for _ in lengths]
    for got, each in zip(forward_many(list(zip(sessions, asked, strict=True))), want, strict=True):
        np.testing.assert_array_equal(bits(got.logits), each)
    assert len({forgotten(session) for session in sessions}) > 2


# ---- memory ----


@pytest.mark.parametrize("executor", ["native", "reference"])
def test_memory_is_bounded_while_the_text_grows(executor):
    """Window, slack and rows, and of each page a part; a text is read, written, drafted for and cut."""
    session = network("mixed", executor).session(1100, max_rows=ROWS)
    cache, sizes = session.caches["window 40"], []
    most = -(-(40 + kv_cache.SLACK + 2 * ROWS) // PAGE) + 1
    while session.length < 1000:
        session.forward(LONG[session.length : session.length + ROWS], rows=())
        session.forward(LONG[:ROWS], parents=[-1] * ROWS, rows=())
        session.keep([3])
        session.forward([1], rows=())
        session.truncate(session.length - 5)
        sizes.append(cache.nbytes // (cache._pages[-1].memory.nbytes))
    assert max(sizes) <= most < 1000 // PAGE and len(cache._pages) - cache.forgotten // PAGE <= most
    assert session.nbytes <= kv_cache.KVCache.most_bytes(session.network.plan, 1100, 2 * ROWS, session.cache_format)
    assert session.cache.nbytes > cache.nbytes and session.nbytes == session.cache.nbytes + cache.nbytes


def test_pages_are_used_again(isa):
    """From one round to the next nothing is taken from the system."""
    session = network("local").session(2048, max_rows=ROWS)
    (cache,) = (each for each in session.caches.values() if each.window)
    session.prefill(LONG[:300])
    memory = {id(page.memory.base) for page in cache._pages + cache._spare}
    session.prefill(LONG[300:1000])
    assert {id(page.memory.base) for page in cache._pages + cache._spare} == memory


def test_a_text_goes_on_where_memory_for_all_of_it_would_not_do(monkeypatch):
    """Layers with windows alone: as many pages may be made as a window takes."""
    taken = []
    new_pages = kv_cache.KVCache._new_pages

    def counted(self, count):
        taken.append(count if self.window else 0)
        assert sum(taken) <= 4
        return new_pages(self, count)

    monkeypatch.setattr(kv_cache.KVCache, "_new_pages", counted)
    session = network("local").session(2048, max_rows=ROWS)
    session.prefill((LONG + LONG)[:2000])
    assert session.length == 2000


def test_a_fork_holds_what_the_first_one_forgets(isa):
    with slack(KEEPS):
        whole = fresh("local")
        whole.prefill(LONG[:200])
        want = bits(whole.forward(LONG[200:230], read=LOGITS).logits)
    session = fresh("local")
    session.prefill(LONG[:200])
    fork = session.fork()
    session.prefill(LONG[200:900])
    np.testing.assert_array_equal(bits(fork.forward(LONG[200:230], read=LOGITS).logits), want)


def test_models_whose_texts_are_written_anew_in_place_keep_everything():
    session = network("local", causal=False).session(2048, max_rows=ROWS)
    session.prefill(LONG[:400])
    assert forgotten(session) == 0
    session.truncate(10)


# ---- what is gone ----


def test_what_is_forgotten_is_refused_by_name(tmp_path):
    session = fresh("mixed")
    session.prefill(LONG[:600])
    assert session.length - 40 - kv_cache.SLACK - ROWS - PAGE <= forgotten(session) <= session.length - 40
    far = session.fork()
    for act in (
        lambda: session.truncate(300),
        lambda: session.truncate(5),
        lambda: far.share(session, 300),
        lambda: far.truncate(forgotten(far) + 1),
        lambda: session.forward([1], positions=[20]),
        lambda: session.forward([1], parents=[-1], positions=[20]),
        lambda: session.forward([1], replace=(100, 600)),
    ):
        with pytest.raises(
            ForgottenError, match=r"after \d+ tokens sees 40 positions in some layers; the first \d+ tokens"
        ):
            act()
        assert (session.length, session.pending, far.length) == (600, 0, 600)
    far.share(session, 0)
    far.forward([1], rows=())
    session.truncate(600 - kv_cache.SLACK)
    session.truncate(0)
    assert forgotten(session) == 0
    with slack(KEEPS):
        want = fresh("mixed").forward(LONG[:30], read=LOGITS).logits
    np.testing.assert_array_equal(bits(session.forward(LONG[:30], read=LOGITS).logits), bits(want))


def test_pending_rows_that_are_dropped_leave_the_text_where_it_can_go_on():
    """The last row lies at a low position; those that were to replace it lie high."""
    gave = []
    for positions in (kv_cache.SLACK, KEEPS):
        with slack(positions):
            session = fresh("last")
            session.prefill(LONG[:300])
            session.forward([1, 2], positions=[420, 200], rows=())
            session.forward([3], replace=(301, 302), positions=[500], rows=())
            session.truncate(302)
            gave.append(bits(session.forward([4], read=LOGITS).logits))
    np.testing.assert_array_equal(*gave)


@pytest.mark.parametrize("name", LAYERS)
def test_a_few_tokens_can_be_taken_back_in_any_case(name):
    """The last forward's rows and SLACK more."""
    for rows in (1, ROWS):
        session = fresh(name)
        session.prefill(LONG[:500])
        for start in range(500, 900, rows):
            session.forward(LONG[start : start + rows], rows=())
            session.fork().truncate(start - kv_cache.SLACK)


def test_a_prefix_that_is_forgotten_is_none():
    session = fresh("mixed")
    session.prefill(LONG[:600])
    assert session.common_prefix(np.array(LONG[:600])) == 600
    assert session.common_prefix(np.array([*LONG[:590], 76])) in (590, 591)
    assert session.common_prefix(np.array([*LONG[:200], (LONG[200] + 1) % VOCAB])) == 0
    assert session.common_prefix(np.array(LONG[:1])) == 1  # from 0 on, everything is read anew


def test_a_file_holds_what_the_session_holds(tmp_path):
    session = fresh("mixed")
    session.prefill(LONG[:600])
    session.save(tmp_path / "s")
    arrays = {key: Stored(dtype, np.asarray(array)) for key, (dtype, array) in read_safetensors(tmp_path / "s").items()}
    held = 600 - forgotten(session)
    assert arrays["keys"].array.shape[0] == 600 and arrays["keys of window 40"].array.shape[0] == held
    again = network("mixed").load_session(tmp_path / "s", 2048, ROWS)
    assert forgotten(again) == forgotten(session)
    with pytest.raises(ForgottenError):
        again.truncate(300)
    arrays["keys of window 40"] = Stored(arrays["keys of window 40"].dtype, arrays["keys of window 40"].array[1:])
    write_safetensors(tmp_path / "s", arrays)
    with pytest.raises(CheckpointError, match="keys of window 40 must be"):
        network("mixed").load_session(tmp_path / "s")


# ---- those who begin with what is there ----


@functools.cache
def model() -> Model:
    return Model(network("mixed"), Path(), frozenset())


def test_a_text_that_shares_a_beginning_is_what_it_is_alone():
    """One that begins where another has just read, one whose beginning is forgotten by then, and one that waits for neither."""
    long = LONG[:900]
    prompts = [long, [*long[:500], 1, 2, 3], [*long[:870], 5], LONG[900:950], [*long[:64], 4]]
    want = [model().generate(prompt, max_tokens=5).tokens for prompt in prompts]
    got = model().generate(prompts, max_tokens=5)
    assert [generation.tokens for generation in got] == want
    shared = [generation.stats.reused_tokens for generation in got]
    assert shared[1] == 500 and shared[2] == 870


def test_a_text_that_comes_late_reads_a_forgotten_beginning_itself():
    long, engine, asked = LONG[:900], Engine(), resolved("generate", {"max_tokens": 3}, ())
    first = engine.submit(tasks.task(model(), [*long], asked))
    for _ in range(5):
        engine.step()
    assert first.text.session.length > 600
    late = engine.submit(tasks.task(model(), [*long[:300], 1], asked))
    engine.step()
    assert late.text is not None  # it waits for nobody
    engine.run()
    assert late.result.tokens == model().generate([*long[:300], 1], max_tokens=3).tokens


@pytest.mark.parametrize(
    "decoder", [None, fd.Speculative(fd.PromptLookup(min_match=1)), fd.Speculative(fd.PromptLookup(min_match=1), tree=fd.Tree(2, 2)), fd.Jacobi(4), fd.Lookahead()]
)  # fmt: skip
def test_decoders_write_on_and_a_session_is_used_again(decoder):
    """Turn after turn in one session: the last one begins where the text is long forgotten."""
    prompt = (LONG[:50] * 8)[:390]
    with slack(KEEPS):
        want = model().generate(prompt, max_tokens=60).tokens
    session = model().session(2048)
    for _ in range(2):
        assert model().generate(prompt, max_tokens=60, decoder=decoder, session=session).tokens == want
        assert forgotten(session) > 200
    assert (
        model().generate(prompt[:100], max_tokens=10, session=session).tokens
        == model().generate(prompt[:100], max_tokens=10).tokens
    )


def test_beams_forget_each_for_itself():
    """They fork and are given up while pages serve again, and find what they find where nothing is forgotten."""
    prompt, search = (LONG[:50] * 8)[:390], fd.BeamSearch(4)
    with slack(KEEPS):
        want = model().generate(prompt, n=4, max_tokens=150, decoder=search)
    got = model().generate(prompt, n=4, max_tokens=150, decoder=search)
    assert [(each.tokens, each.score) for each in got] == [(each.tokens, each.score) for each in want]
    assert min(len(each.tokens) for each in got) == 150


def test_the_greatest_position_that_is_forgotten_is_known():
    """Of pages whose positions fall."""
    cache = kv_cache.KVCache(network("local").plan, 4 * PAGE, "f16", "window 5")
    cache.reserve(0, 3 * PAGE)
    cache.forget(np.repeat([90, 10, 990], PAGE), 1000)
    assert (cache.forgotten, cache.last_forgotten) == (2 * PAGE, 90)
    cache.check_held(3 * PAGE, 95)
    with pytest.raises(ForgottenError):
        cache.check_held(3 * PAGE, 94)
