"""The teacher file: what comes back, what it costs, that it is a safetensors file, and that no broken one is believed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.checkpoint.safetensors_file import open_safetensors
from fastdistill.distill import TeacherFile, TeacherWriter, TopK, teacher_top_k
from fastdistill.errors import ArgumentError, CheckpointError, NotFiniteError

ROOT = Path(__file__).resolve().parents[3]


def logits_of(seed, rows, vocab, scale=3.0, bans=0.0):
    random = np.random.default_rng(seed)
    logits = random.standard_normal((rows, vocab)) * scale
    logits[:, 1:][random.random((rows, vocab - 1)) < bans] = -np.inf
    return logits.astype(np.float32)


def written(path, logits, k, bits=5, model=""):
    with TeacherWriter(path, logits.shape[1], k, bits=bits, model=model) as file:
        file.append(logits)
    return TeacherFile(path)


def kept_divergence(truth: TopK, found: TopK) -> np.ndarray:
    """KL in nats of each row between the laws of the kept tokens and the tail as one."""
    p, q = (np.exp(top.log_probs.astype(np.float64)) for top in (truth, found))
    p, q = (np.concatenate([law, top.tail[:, None]], axis=1) for law, top in ((p, truth), (q, found)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p > 0, p * np.log(p / q), 0).sum(axis=1)


@given(
    seed=st.integers(0, 2**32), rows=st.integers(0, 9), vocab=st.sampled_from([1, 2, 17, 300]), bits=st.integers(2, 8),
    scale=st.sampled_from([0.0, 0.5, 4.0, 200.0]), bans=st.sampled_from([0, 0.5]), data=st.data(),
)  # fmt: skip
def test_a_law_comes_back_but_for_half_a_step(tmp_path_factory, seed, rows, vocab, bits, scale, bans, data):
    k = data.draw(st.integers(1, min(vocab, 60)))
    logits = logits_of(seed, rows, vocab, scale, bans)
    file = written(tmp_path_factory.mktemp("teacher") / "t.safetensors", logits, k, bits, "a model")
    truth, found = teacher_top_k(logits, k), file[:]
    assert (len(file), file.settings) == (rows, (vocab, k, bits, "a model", ""))
    np.testing.assert_array_equal(found.ids, truth.ids)
    np.testing.assert_array_equal(found.log_probs == -np.inf, truth.log_probs == -np.inf)
    np.testing.assert_allclose(found.tail, truth.tail, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(np.exp(found.log_probs).sum(axis=1) + found.tail, 1, atol=1e-5)
    finite = np.isfinite(truth.log_probs)
    for row in range(rows):
        laws = truth.log_probs[row][finite[row]].astype(np.float64)
        step = (laws.max() - laws.min()) / ((1 << bits) - 2)
        # The scale is a float16: at the last code it is off by half a unit of its last place so many times.
        off = step / 2 + (laws.max() - laws.min()) * 2.0**-11 + 1e-4
        apart = found.log_probs[row][finite[row]].astype(np.float64)
        assert np.abs((apart.max() - apart) - (laws.max() - laws)).max() <= off
        # What makes the sum 1 moves all by as much at most.
        assert np.abs(apart - laws).max() <= 2 * off


@pytest.mark.parametrize("width", [0, 1e-9, 2.7e-6, 1e-3, 100, 3e6])
def test_steps_that_float16_rounds_much_or_cannot_hold_ban_nothing(tmp_path, width):
    """Below 6e-5 it has few bits; above 65504 it ends, and probabilities of 0 are near enough."""
    logits = np.linspace(0, -width, 40)[None]
    found = written(tmp_path / "t", logits, 30)[:]
    assert np.isfinite(found.log_probs).all()
    truth = teacher_top_k(logits, 30)
    np.testing.assert_allclose(
        np.exp(found.log_probs), np.exp(truth.log_probs), rtol=0.4 if width > 1e-3 else 1e-4, atol=1e-4
    )


def test_a_tail_of_nearly_all_leaves_the_others_something(tmp_path):
    with TeacherWriter(tmp_path / "t", 9, 1) as file:
        file.append_top_k([[3]], [[-18.0]])
    found = TeacherFile(tmp_path / "t")[:]
    assert found.tail[0] < 1 and np.isfinite(found.log_probs).all()


def test_bits_buy_accuracy_and_5_are_enough():
    """The squared error of a step of 1 / (2^bits - 2) of the range: four times less a bit."""
    truth = teacher_top_k(logits_of(0, 200, 5000), 50)
    from fastdistill.distill.teachers.teacher_file import Settings, decoded, encoded

    means = []
    for bits in (4, 5, 6, 7, 8):
        settings = Settings(5000, 50, bits, "")
        rows = encoded(settings, truth.ids, truth.log_probs.astype(np.float64), truth.tail.astype(np.float64))
        means.append(kept_divergence(truth, decoded(settings, rows)).mean())
    ratios = np.array(means[:-1]) / means[1:]
    assert (ratios > 3).all() and (ratios < 6).all() and means[1] < 2e-3


@given(seed=st.integers(0, 2**32), begin=st.integers(-30, 30), end=st.integers(-30, 30))
def test_any_part_is_that_of_the_whole(tmp_path_factory, seed, begin, end):
    file = written(tmp_path_factory.mktemp("teacher") / "t", logits_of(seed, 20, 40), 7)
    whole, part = file[:], file[begin:end]
    for found, want in zip(part, whole, strict=True):
        np.testing.assert_array_equal(found, want[begin:end])
    assert part.ids.shape == (len(range(20)[begin:end]), 7)


def test_parts_of_more_rows_than_are_decoded_at_a_time(tmp_path):
    file = written(tmp_path / "t", logits_of(1, 9000, 8), 2)
    for found, want in zip(file[10:8500], file[:], strict=True):
        np.testing.assert_array_equal(found, want[10:8500])


@given(cuts=st.lists(st.integers(0, 30), max_size=4), seed=st.integers(0, 2**32))
def test_the_file_does_not_depend_on_how_rows_came(tmp_path_factory, cuts, seed):
    logits, folder = logits_of(seed, 30, 50), tmp_path_factory.mktemp("teacher")
    written(folder / "whole", logits, 5)
    edges = [0, *sorted(cuts), 30]
    with TeacherWriter(folder / "parts", 50, 5) as file:
        for begin, end in itertools.pairwise(edges):
            file.append(logits[begin:end])
            assert file.tokens == end
    assert (folder / "whole").read_bytes() == (folder / "parts").read_bytes()


def test_known_tokens_in_any_order_are_those_of_the_logits(tmp_path):
    logits = logits_of(2, 6, 40)
    top = teacher_top_k(logits, 5)
    order = np.argsort(-top.log_probs, axis=1)
    ids, laws = (np.take_along_axis(array, order, axis=1) for array in (top.ids, top.log_probs))
    want = written(tmp_path / "a", logits, 5)[:]
    for name, tail in (("b", top.tail), ("c", None)):
        with TeacherWriter(tmp_path / name, 40, 5) as file:
            file.append_top_k(ids, laws, tail)
        found = TeacherFile(tmp_path / name)[:]
        np.testing.assert_array_equal(found.ids, want.ids)
        np.testing.assert_allclose(found.log_probs, want.log_probs, atol=1e-5)
        np.testing.assert_allclose(found.tail, want.tail, atol=1e-6)
    with TeacherWriter(tmp_path / "d", 40, 5) as file:
        file.append_top_k(ids.tolist(), laws.astype(np.float16))  # as an API gives them
    np.testing.assert_array_equal(TeacherFile(tmp_path / "d")[:].ids, want.ids)


@pytest.mark.parametrize(
    ("vocab", "k", "bits", "size"),
    [(49152, 50, 5, 113), (151_936, 50, 5, 123), (49152, 128, 5, 254), (49152, 50, 8, 131), (5, 5, 2, 10)],
)
def test_bytes_of_a_token(tmp_path, vocab, k, bits, size):
    """DistillKit's k = 50 takes 114 of 49152 tokens, 127 of 151,936."""
    with TeacherWriter(tmp_path / "t", vocab, k, bits=bits) as file:
        assert file.token_bytes == size
        file.append(np.zeros((300, vocab), np.float32))
    header = 8 + int.from_bytes((tmp_path / "t").read_bytes()[:8], "little")
    assert (tmp_path / "t").stat().st_size == header + 300 * size


def test_other_programs_can_read_it(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    logits = logits_of(3, 11, 40)
    written(tmp_path / "t.safetensors", logits, 5, model="名前")
    with safetensors.safe_open(tmp_path / "t.safetensors", "np") as file:
        assert file.metadata() == {
            "format": "fastdistill-teacher", "version": "1", "vocab_size": "40", "k": "5", "bits": "5", "tokens": "11",
            "temperature": "1", "model": "名前",
        }  # fmt: skip
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {name: (array.dtype.name, array.shape) for name, array in found.items()} == {
        "ids": ("uint8", (11, 3)), "codes": ("uint8", (11, 4)), "scale": ("float16", (11,)), "tail": ("float32", (11,)),
    }  # fmt: skip
    np.testing.assert_allclose(found["tail"], teacher_top_k(logits, 5).tail, rtol=1e-6)


# ---- what happens in between ----
def test_a_file_appears_whole_and_what_had_its_name_stays_till_then(tmp_path):
    old = written(tmp_path / "t", logits_of(4, 3, 9), 2)
    with TeacherWriter(tmp_path / "t", 9, 2) as file:
        file.append(logits_of(5, 7, 9))
        assert len(TeacherFile(tmp_path / "t")) == 3
    assert len(TeacherFile(tmp_path / "t")) == 7 and len(old[:].tail) == 3  # who has it open keeps it
    assert os.listdir(tmp_path) == ["t"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_rows_until_an_error_are_in_the_part_file_and_it_goes_on_from_there(tmp_path, error):
    logits = logits_of(6, 10, 9)
    with pytest.raises(error), TeacherWriter(tmp_path / "t", 9, 2, model="m") as file:
        file.append(logits[:4])
        raise error
    assert os.listdir(tmp_path) == ["t.part"] and len(TeacherFile(tmp_path / "t.part")) == 4
    with TeacherWriter(tmp_path / "t", 9, 2, model="m", resume=True) as file:
        file.append(logits[file.tokens :])
    want = written(tmp_path / "whole", logits, 2, model="m")
    for found, expected in zip(TeacherFile(tmp_path / "t")[:], want[:], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert sorted(os.listdir(tmp_path)) == ["t", "whole"]


def test_rows_that_are_refused_leave_those_before_alone(tmp_path):
    logits = logits_of(7, 4, 9)
    logits_with_nan = logits.copy()
    logits_with_nan[2, 0] = np.nan
    with TeacherWriter(tmp_path / "t", 9, 2) as file:
        file.append(logits)
        with pytest.raises(NotFiniteError, match="logits: row 2 holds a NaN"):
            file.append(logits_with_nan)
        file.append(logits)
    assert len(TeacherFile(tmp_path / "t")) == 8


def test_nothing_is_left_of_a_block_without_rows_that_failed_and_resuming_nothing_begins(tmp_path):
    with pytest.raises(ZeroDivisionError), TeacherWriter(tmp_path / "t", 9, 2):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
    with TeacherWriter(tmp_path / "t", 9, 2, resume=True) as file:
        assert file.tokens == 0
    assert len(TeacherFile(tmp_path / "t")) == 0 and TeacherFile(tmp_path / "t")[:].ids.shape == (0, 2)


def test_rows_are_kept_where_the_name_cannot_be_had(tmp_path):
    (tmp_path / "t").mkdir()
    with (
        pytest.raises(CheckpointError, match="t: cannot be written: what has that name is no regular file"),
        TeacherWriter(tmp_path / "t", 9, 2) as file,
    ):
        file.append(logits_of(8, 4, 9))
    assert len(TeacherFile(tmp_path / "t.part")) == 4


def test_an_interrupt_leaves_no_half_file(tmp_path):
    program = """
import signal, sys, numpy as np
from fastdistill.distill import TeacherWriter
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests were started by ignores
with TeacherWriter(sys.argv[1], 500, 5) as file:
    while True:
        file.append(np.random.default_rng(file.tokens).standard_normal((20, 500)))
        print(file.tokens, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program, tmp_path / "t"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    assert process.wait(60) != 0
    assert os.listdir(tmp_path) == ["t.part"]
    kept = TeacherFile(tmp_path / "t.part")
    assert len(kept) >= 60 and len(kept) % 20 == 0
    want = teacher_top_k(np.random.default_rng(40).standard_normal((20, 500)), 5)
    np.testing.assert_array_equal(kept[40:60].ids, want.ids)


# ---- what is no teacher file ----
@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "t"
    written(path, logits_of(9, 6, 300), 20, model="m")
    return path.read_bytes()


@given(seed=st.integers(0, 2**32), how=st.sampled_from(["cut", "bytes", "header", "longer"]))
def test_a_broken_file_is_an_error_or_laws_all_the_same(tmp_path_factory, whole, seed, how):
    random, data = np.random.default_rng(seed), bytearray(whole)
    length = 8 + int.from_bytes(data[:8], "little")
    if how == "cut":
        data = data[: random.integers(0, len(data))]
    elif how == "longer":
        data += bytes(int(random.integers(1, 200)))
    else:
        for _ in range(random.integers(1, 6)):
            data[random.integers(0, length if how == "header" else len(data))] = random.integers(0, 256)
    path = tmp_path_factory.mktemp("broken") / "t"
    path.write_bytes(data)
    try:
        found = TeacherFile(path)[:]
    except CheckpointError as error:
        assert str(path) in str(error) and len(str(error)) < 600
        return
    assert how in ("bytes", "header")
    assert (np.diff(found.ids, axis=1) > 0).all() and (found.ids >= 0).all()
    np.testing.assert_allclose(np.exp(found.log_probs.astype(float)).sum(axis=1) + found.tail, 1, atol=1e-5)


def changed(data: bytes, **metadata: str | None) -> bytes:
    """The file with other metadata, or with arrays under other names."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    for name, value in metadata.items():
        if value is None:
            del header["__metadata__"][name]
        elif name in header:
            header[value] = header.pop(name)
        else:
            header["__metadata__"][name] = value
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": "pt"}, "its format is 'pt'; expected 'fastdistill-teacher'"),
        ({"format": None}, "its format is None"),
        ({"version": "2"}, "its version is '2'; expected '1'"),
        ({"temperature": "2"}, "its temperature is '2'; expected '1'"),
        ({"k": "21"}, r"codes is U8 of shape \(6, 13\); expected U8 of shape \(6, 14\), for 6 tokens of k = 21"),
        ({"k": "301"}, "its k is '301'; expected 1 to 300"),
        ({"k": "-1"}, "its k is '-1'"),
        ({"k": "²"}, "its k is"),
        ({"bits": "9"}, "its bits is '9'; expected 2 to 8"),
        ({"vocab_size": "0"}, "its vocab_size is '0'; expected 1 to 2147483647"),
        ({"vocab_size": "9" * 5000}, "its vocab_size is"),
        ({"tokens": "7"}, r"expected .* of shape \(7"),
        ({"tokens": None}, "its tokens is None"),
        ({"model": None}, "names no model"),
        ({"ids": "idx"}, "has the arrays .*idx.*; expected ids, codes, scale, tail"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path, whole, change, text):
    (tmp_path / "t").write_bytes(changed(whole, **change))
    with pytest.raises(CheckpointError, match=text):
        TeacherFile(tmp_path / "t")


@pytest.mark.parametrize(
    ("name", "row", "value", "text"),
    [
        ("ids", 4, 0, "token 4: its ids are not 20 ascending tokens below 300"),
        ("codes", 2, 0xFF, "token 2: none of its tokens has a probability"),
        ("scale", 3, -1.0, "token 3: its scale is -1.0; expected a number from 0"),
        ("scale", 1, np.nan, "token 1: its scale is nan"),
        ("tail", 5, 1.0, "token 5: its tail is 1.0; expected a number from 0, below 1"),
        ("tail", 0, np.nan, "token 0: its tail is nan"),
    ],
)
def test_a_row_that_is_no_law_is_refused_by_its_number(tmp_path, whole, name, row, value, text):
    path = tmp_path / "t"
    path.write_bytes(whole)
    array = open_safetensors(path)[0][name].array
    data = np.asarray(array)
    data[row] = value
    with path.open("r+b") as file:
        file.seek(array._offset)
        file.write(data.tobytes())
    with pytest.raises(CheckpointError, match=text):
        TeacherFile(path)[row:]
    assert len(TeacherFile(path)[row + 1 :].tail) == 5 - row


def test_a_file_that_is_cut_while_it_is_open_is_an_error(tmp_path, whole):
    path = tmp_path / "t"
    path.write_bytes(whole)
    file = TeacherFile(path)
    os.truncate(path, len(whole) - 1)
    with pytest.raises(CheckpointError, match="ends inside"):
        file[:]
    assert len(file[:5].tail) == 5


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda path: TeacherWriter(path, 9, 10), r"k must lie in 1\.\.9, got 10"),
        (lambda path: TeacherWriter(path, 9, 2, bits=1), r"bits must lie in 2\.\.8, got 1"),
        (lambda path: TeacherWriter(path, 9, 2, model=3), "model must be a str"),
        (lambda path: TeacherWriter("/", 9, 2), "path must name a file"),
        (lambda path: TeacherWriter(path, 9, 2).append(np.zeros((1, 9))), "takes rows within its block"),
        (lambda path: TeacherFile(path)[3], "must be a slice without a step, got 3"),
        (lambda path: TeacherFile(path)[::2], "must be a slice without a step"),
        (lambda path: TeacherFile(path)["a":], "must be a slice of integers"),
    ],
)
def test_refuses(tmp_path, whole, call, text):
    (tmp_path / "t").write_bytes(whole)
    with pytest.raises(ArgumentError, match=text):
        call(tmp_path / "t")


def test_refuses_rows_of_another_vocabulary_or_k_and_other_settings_to_resume(tmp_path):
    with pytest.raises(ArgumentError, match="logits must have shape"), TeacherWriter(tmp_path / "t", 9, 2) as file:
        file.append(np.zeros((3, 9), np.float32))
        file.append(np.zeros((1, 8), np.float32))
    with (
        pytest.raises(ArgumentError, match="ids must have k = 2 columns, got 1"),
        TeacherWriter(tmp_path / "s", 9, 2) as file,
    ):
        file.append_top_k([[3]], [[0.0]])
    with pytest.raises(
        ArgumentError, match=r"t\.part' has .*\(9, 2, 5, '', ''\).*expected .*\(9, 3, 5, '', ''\).* to resume"
    ):
        TeacherWriter(tmp_path / "t", 9, 3, resume=True).__enter__()
    writer = TeacherWriter(tmp_path / "u", 9, 2)
    with writer:
        pass
    with pytest.raises(ArgumentError, match="writes one file"), writer:
        pass


@pytest.mark.model
def test_the_real_models_answers_cost_114_bytes_and_less_error_than_distillkits(smollm2, tmp_path):
    from bench.studies.teacher_file import distillkit_bytes, distillkit_log_probs, kept_divergence, teacher_logits

    logits = teacher_logits(smollm2)[:512]
    file = written(tmp_path / "t", logits, 50)
    truth = teacher_top_k(logits, 50)
    ours = kept_divergence(truth, file[:])
    theirs = kept_divergence(truth, distillkit_log_probs(truth))
    assert TeacherWriter(tmp_path / "u", logits.shape[1]).token_bytes <= distillkit_bytes(50, logits.shape[1]) == 114
    assert ours.mean() < theirs.mean() / 20 and np.quantile(ours, 0.99) < np.quantile(theirs, 0.99) / 20
