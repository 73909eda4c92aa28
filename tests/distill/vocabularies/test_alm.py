"""ALM: the formulas by hand, gradients by finite differences, one tokenizer as a known case, and what does not count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import align_bytes, alm_loss, chunk_weights
from fastdistill.errors import ArgumentError, NotFiniteError

KINDS = ["binary_ce", "kl", "reverse_kl", "abs", "abs_exp"]
VOCAB = 7


def log_softmax(logits):
    below = logits - logits.max(axis=1, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=1, keepdims=True))


def case(seed, chunks=4, spaces=True, dropped=True):
    """Arguments of a call: chunks of 1 to 3 tokens a side, some tokens in none, and a row behind the last one."""
    random = np.random.default_rng(seed)
    found, i, j = [], 0, 0
    for _ in range(chunks):
        i, j = (at + int(dropped and random.random() < 0.2) for at in (i, j))
        end_i, end_j = i + random.integers(1, 4), j + random.integers(1, 4)
        found.append((i, end_i, j, end_j))
        i, j = end_i, end_j
    arguments = {
        "student": random.standard_normal((j + 1, VOCAB)) * 2,
        "labels": random.integers(0, VOCAB, j + 1).astype(np.int32),
        "chunks": np.array(found, np.int32).reshape(-1, 4),
        "teacher_log_probs": -random.exponential(1.5, i + 1),
    }
    if spaces:
        arguments |= {
            "space": np.arange(VOCAB) % 3 == 0,
            "teacher_space_log_probs": -random.exponential(1, i + 1),
        }
    return arguments


def by_hand(student, labels, chunks, teacher_log_probs, kind, tau, epsilon, space=None, teacher_space_log_probs=None):
    """The cost of each chunk, one by one."""
    log_q, costs = log_softmax(student), []
    for i0, i1, j0, j1 in chunks:
        a = sum(teacher_log_probs[i] for i in range(i0, i1))
        b = sum(log_q[j, labels[j]] for j in range(j0, j1))
        if space is not None:
            a += teacher_space_log_probs[i1]
            b += np.log(np.exp(log_q[j1][space]).sum())
        p, q = np.exp(a / tau - epsilon), np.exp(b / tau - epsilon)
        ce = -(p * np.log(q) + (1 - p) * np.log(1 - q))
        costs.append(
            {
                "binary_ce": ce,
                "kl": ce + p * np.log(p) + (1 - p) * np.log(1 - p),
                "reverse_kl": q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p)),
                "abs": abs(np.log(q) - np.log(p)),
                "abs_exp": abs(q - p),
            }[kind]
        )
    return np.array(costs)


SETTINGS = {
    "seed": st.integers(0, 2**32), "kind": st.sampled_from(KINDS), "tau": st.sampled_from([0.5, 1.0, 2.0, 100.0]),
    "spaces": st.booleans(),
}  # fmt: skip


@given(**SETTINGS)
def test_matches_the_formulas(seed, kind, tau, spaces):
    arguments = case(seed, spaces=spaces)
    found = alm_loss(**arguments, kind=kind, binarization_temperature=tau, epsilon=1e-4)
    want = by_hand(**arguments, kind=kind, tau=tau, epsilon=1e-4)
    np.testing.assert_allclose(found.rows, want, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(found.value, want.mean(), rtol=1e-7, atol=1e-10)
    assert found.info["counted"] == len(want)
    assert alm_loss(**arguments, kind=kind, gradient=False).gradient is None


@given(**SETTINGS)
def test_gradient_is_the_derivative(seed, kind, tau, spaces):
    arguments = case(seed, spaces=spaces)
    settings = {"kind": kind, "binarization_temperature": tau}
    settings["weights"] = np.random.default_rng(seed).random(len(arguments["chunks"]))
    found = alm_loss(**arguments, **settings)
    # The kinks of abs and abs_exp, where a = b, are no multiples of the step away by chance: a differs from b by some 0.1.
    along = np.random.default_rng(seed + 1).standard_normal(arguments["student"].shape)
    step = 1e-5
    higher, lower = (
        alm_loss(**arguments | {"student": arguments["student"] + sign * step * along}, **settings).value
        for sign in (1, -1)
    )
    apart = np.abs(found.info["teacher_log_probs"] - found.info["student_log_probs"]).min()
    if kind.startswith("abs") and apart < 1e-3:
        return
    slope = (higher - lower) / (2 * step)
    np.testing.assert_allclose((found.gradient * along).sum(), slope, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.gradient.sum(axis=1), 0, atol=1e-12)  # blind to a shift of a row's logits


def test_every_entry_of_the_gradient():
    arguments = case(3)
    found = alm_loss(**arguments)
    step = 1e-4
    want = np.zeros_like(found.gradient)
    for place in np.ndindex(want.shape):
        for sign in (1, -1):
            moved = arguments["student"].copy()
            moved[place] += sign * step
            want[place] += sign * alm_loss(**arguments | {"student": moved}).value / (2 * step)
    np.testing.assert_allclose(found.gradient, want, atol=1e-9)


@given(seed=st.integers(0, 2**32))
def test_of_one_tokenizer_it_is_the_binary_cross_entropy_of_the_token(seed):
    """Chunks of a token, tau = 1: the gradient pulls the token's probability towards the teacher's."""
    random = np.random.default_rng(seed)
    student, teacher = random.standard_normal((2, 6, VOCAB)) * 2
    labels = random.integers(0, VOCAB, 6).astype(np.int32)
    rows = np.arange(6)
    p, q = (np.exp(log_softmax(logits))[rows, labels] for logits in (teacher, student))
    chunks = np.stack([rows, rows + 1] * 2, axis=1)
    found = alm_loss(student, labels, chunks, np.log(p), binarization_temperature=1, epsilon=1e-9)
    np.testing.assert_allclose(found.rows, -(p * np.log(q) + (1 - p) * np.log(1 - q)), atol=1e-6)
    np.testing.assert_array_equal(np.sign(found.gradient[rows, labels]), np.sign(q - p))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_likelihoods_have_no_gradient_and_but_for_cross_entropy_no_cost(kind):
    arguments = case(5, spaces=False)
    log_q = log_softmax(arguments["student"])
    chunks = arguments["chunks"][:, [2, 3, 2, 3]]
    own = log_q[np.arange(len(log_q)), arguments["labels"]]
    found = alm_loss(arguments["student"], arguments["labels"], chunks, own, kind=kind)
    # abs has slope 1 on either side of its kink: rounding may choose one.
    if kind not in ("abs", "abs_exp"):
        np.testing.assert_allclose(found.gradient, 0, atol=1e-14)
    if kind == "binary_ce":
        assert (found.rows > 0).all()
    else:
        np.testing.assert_allclose(found.rows, 0, atol=1e-14)


def test_its_limit_at_large_temperatures():
    """tau times the KL: |b| - |a| + |a| log(|a| / |b|)."""
    student = np.array([[0.0, 1.3, 0.2]])
    b = log_softmax(student)[0, 0]
    for a in (-0.5, -4.0):
        tau = 1e5
        found = alm_loss(student, [0], [[0, 1, 0, 1]], [a], kind="kl", binarization_temperature=tau, epsilon=1e-12)
        want = abs(b) - abs(a) + abs(a) * np.log(a / b)
        np.testing.assert_allclose(tau * found.value, want, rtol=1e-4)


def test_a_long_chunk_is_dead_at_temperature_1_and_is_not_at_100():
    student = np.zeros((60, 500))
    student[:, 1] = 2
    arguments = student, np.zeros(60, int), [[0, 1, 0, 60]], [-200.0]
    norms = [np.abs(alm_loss(*arguments, binarization_temperature=tau).gradient).max() for tau in (1, 100)]
    assert norms[0] < 1e-80 and norms[1] > 1e-4


@given(seed=st.integers(0, 2**32))
def test_likelihoods_of_finer_chunks_sum_up_to_those_of_coarser_ones(seed):
    arguments = case(seed, chunks=4, spaces=False, dropped=False)
    fine = alm_loss(**arguments).info
    merged = arguments["chunks"].reshape(2, 2, 4)
    coarse = alm_loss(
        **arguments | {"chunks": np.stack([merged[:, 0, 0], merged[:, 1, 1], merged[:, 0, 2], merged[:, 1, 3]], axis=1)}
    ).info
    for name in ("teacher_log_probs", "student_log_probs"):
        np.testing.assert_allclose(coarse[name], fine[name].reshape(2, 2).sum(axis=1), rtol=1e-12)


@given(seed=st.integers(0, 2**32), spaces=st.booleans(), dtype=st.sampled_from([np.float32, np.float64]))
def test_what_does_not_count_is_not_read(seed, spaces, dtype):
    """Chunks of weight 0 and with ignored labels, and tokens in no chunk, may hold anything and have no gradient."""
    arguments = case(seed, chunks=5, spaces=spaces)
    arguments["student"] = arguments["student"].astype(dtype)
    chunks, random = arguments["chunks"], np.random.default_rng(seed)
    weights = np.array([1, 0, 2, 1, 1.0])
    ignored = chunks[3, 2]
    clean = alm_loss(**arguments | {"chunks": chunks[[0, 2, 4]]}, weights=weights[[0, 2, 4]])
    read_j = np.concatenate([np.arange(chunks[c, 2], chunks[c, 3] + spaces) for c in (0, 2, 4)])
    read_i = np.concatenate([np.arange(*chunks[c, :2]) for c in (0, 2, 4)])
    dirty = {name: np.array(value) for name, value in arguments.items()}
    dirty["labels"][ignored] = -100
    dirty["student"][np.setdiff1d(np.arange(len(dirty["student"])), read_j)] = np.nan
    dirty["teacher_log_probs"][np.setdiff1d(np.arange(len(dirty["teacher_log_probs"])), read_i)] = random.choice(
        [np.nan, 9]
    )
    if spaces:
        dirty["teacher_space_log_probs"][
            np.setdiff1d(np.arange(len(dirty["teacher_log_probs"])), chunks[[0, 2, 4], 1])
        ] = np.nan
    found = alm_loss(**dirty, weights=weights)
    np.testing.assert_array_equal(found.rows, [clean.rows[0], 0, clean.rows[1], 0, clean.rows[2]])
    np.testing.assert_array_equal(found.gradient, clean.gradient)
    assert found.value == clean.value and found.info["counted"] == 3 and found.gradient.dtype == dtype


def test_nothing_that_counts_is_0_and_no_gradient():
    arguments = case(0)
    for empty in (
        alm_loss(**arguments, weights=np.zeros(4)),
        alm_loss(**arguments | {"chunks": np.zeros((0, 4), np.int32)}),
        alm_loss(np.zeros((0, 3)), [], np.zeros((0, 4), np.int32), []),
    ):
        assert empty.value == 0 and not empty.rows.any() and not empty.gradient.any()


@given(seed=st.integers(0, 2**32), cut=st.integers(0, 4))
def test_any_split_into_micro_batches_sums_up_to_the_whole(seed, cut):
    arguments = case(seed)
    chunks, weights = arguments["chunks"], np.random.default_rng(seed).random(4)
    whole = alm_loss(**arguments, weights=weights)
    parts = [
        alm_loss(**arguments | {"chunks": chunks[part]}, weights=weights[part], total_weight=weights.sum())
        for part in (slice(0, cut), slice(cut, 4))
    ]
    np.testing.assert_allclose(sum(part.value for part in parts), whole.value, rtol=1e-12)
    np.testing.assert_allclose(sum(part.gradient for part in parts), whole.gradient, atol=1e-14)


def test_masks_on_both_sides():
    arguments = case(2, spaces=False)
    masks = [np.ones(len(arguments[name]), bool) for name in ("teacher_log_probs", "labels")]
    masks[0][arguments["chunks"][1, 0]] = masks[1][arguments["chunks"][2, 3] - 1] = False
    weights = chunk_weights(arguments["chunks"], *masks)
    assert weights.tolist() == [1, 0, 0, 1]
    assert (alm_loss(**arguments, weights=weights).rows > 0).tolist() == [True, False, False, True]


def test_a_chunk_without_a_row_to_look_ahead_does_not_count():
    arguments = case(1, dropped=False)
    n = len(arguments["labels"]) - 1
    short = arguments | {"student": arguments["student"][:n].copy(), "labels": arguments["labels"][:n]}
    assert alm_loss(**short).info["counted"] == 3
    ignored = arguments | {"labels": np.append(arguments["labels"][:n], -100)}  # its label does not matter
    np.testing.assert_array_equal(alm_loss(**ignored).rows, alm_loss(**arguments).rows)


def test_what_the_teacher_bans_pushes_the_student_off():
    arguments = case(1, spaces=False)
    arguments["teacher_log_probs"][0] = -np.inf
    for kind in ("binary_ce", "kl", "abs_exp"):
        found = alm_loss(**arguments, kind=kind)
        label = arguments["labels"][0]
        assert np.isfinite(found.value) and found.gradient[arguments["chunks"][0, 2], label] > 0
    for kind in ("reverse_kl", "abs"):
        with pytest.raises(NotFiniteError, match=rf"teacher_log_probs: row 0 holds -inf: {kind} needs finite ones"):
            alm_loss(**arguments, kind=kind)


def test_a_certain_student_has_a_bounded_slope():
    """b = 0: 1 / (1 - e^B) is capped by epsilon."""
    student = np.array([[800.0, 0, 0]])
    found = alm_loss(student, [0], [[0, 1, 0, 1]], [-3.0])
    assert np.isfinite(found.value) and np.isfinite(found.gradient).all()
    sharp = alm_loss(student, [0], [[0, 1, 0, 1]], [-3.0], binarization_temperature=1, epsilon=1e-12)
    np.testing.assert_allclose(sharp.value, -(1 - np.exp(-3)) * np.log(1e-12), rtol=1e-10)


def test_logits_of_any_size_and_a_shift():
    arguments = case(4)
    want = alm_loss(**arguments)
    found = alm_loss(**arguments | {"student": arguments["student"] + 1e4})
    np.testing.assert_allclose(found.gradient, want.gradient, atol=1e-9)


def replaced(**changes):
    return case(0, spaces=False) | changes


def poisoned(name, at, value):
    arguments = case(0)
    arguments[name] = np.array(arguments[name], float)
    arguments[name][at] = value
    return arguments


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (replaced(labels=[0]), ArgumentError, "labels must have shape"),
        (replaced(chunks=[[0, 1, 0, 99]]), ArgumentError, "labels must have an entry for each token: chunks reach to 99"),
        (replaced(chunks=[[0, 99, 0, 1]]), ArgumentError, "teacher_log_probs must have an entry for each token: chunks reach to 99"),
        (replaced(kind="renyi"), ArgumentError, "kind must be one of binary_ce, kl, reverse_kl, abs, abs_exp, got 'renyi'"),
        (replaced(binarization_temperature=0), ArgumentError, "binarization_temperature must lie in"),
        (replaced(epsilon=0), ArgumentError, "epsilon must lie in"),
        (replaced(space=np.ones(VOCAB, bool)), ArgumentError, "space and teacher_space_log_probs go together"),
        (case(0) | {"space": np.zeros(VOCAB, bool)}, ArgumentError, "space must name one token at least"),
        (poisoned("student", (0, 0), np.nan), NotFiniteError, "student: row 0 holds a NaN"),
        (poisoned("teacher_log_probs", 0, np.nan), NotFiniteError, "teacher_log_probs: row 0 holds nan"),
        (poisoned("teacher_log_probs", 0, 0.5), ArgumentError, "teacher_log_probs must be log-probabilities, at most 0, got 0.5 at 0"),
        (replaced(weights=[1.0]), ArgumentError, "weights must have shape"),
    ],
)  # fmt: skip
def test_refuses(arguments, error, text):
    with pytest.raises(error, match=text):
        alm_loss(**arguments)


def test_refuses_a_student_that_bans_what_it_is_asked_for():
    arguments = case(0)
    row = arguments["chunks"][0, 2]
    arguments["student"][row, arguments["labels"][row]] = -np.inf
    with pytest.raises(NotFiniteError, match=f"student: row {row} gives its label no probability"):
        alm_loss(**arguments)


def test_a_student_of_bytes_learns_from_a_teacher_of_words():
    """No labels' loss: bits a byte fall, at temperature 100 below those at 1 (a teacher of whole words, a student that knows the byte before)."""
    random = np.random.default_rng(0)
    words, law = [" the", " cat", " that", " hat"], np.array([0.5, 0.2, 0.2, 0.1])
    said = random.choice(4, 300, p=law)
    text = "".join(words[word] for word in said).encode()
    alphabet, tokens = np.unique(np.frombuffer(text, np.uint8), return_inverse=True)
    ends = np.cumsum([len(words[word]) for word in said])
    places = np.arange(len(text))
    chunks = align_bytes(
        np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1), np.stack([places, places + 1], axis=1)
    ).chunks
    before = np.concatenate([[0], tokens[:-1]])

    def bits_a_byte(tau):
        table = np.zeros((len(alphabet), len(alphabet)))
        for _ in range(150):
            logits = table[before]
            loss = alm_loss(logits, tokens, chunks, np.log(law[said]), binarization_temperature=tau)
            by_table = np.zeros_like(table)
            np.add.at(by_table, before, loss.gradient)
            table -= 0.2 * by_table / np.abs(by_table).max()  # steps of one size, as an optimiser takes
        return -log_softmax(table[before])[places, tokens].mean() / np.log(2)

    first = np.log2(len(alphabet))
    slow, fast = bits_a_byte(1), bits_a_byte(100)
    assert fast < slow < first and fast < first / 2
