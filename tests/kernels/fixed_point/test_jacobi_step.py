"""jacobi_step against its reference, on every level; iterating it reaches the text of one token at a time; edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import RowStatistics, Sampler, fixed_point_prefix, jacobi_step, row_statistics, sample
from fastdistill.kernels.boundary import lib, pointer
from fastdistill.reference.fixed_point.jacobi_step import jacobi_step as reference_jacobi_step
from fastdistill.reference.sample.sample import sample as reference_sample

# The seed alone, one under, at and over one and two blocks of 16, and one long row.
LENGTHS = [1, 2, 15, 16, 17, 31, 32, 33, 300]
LEADING = [(), (0,), (1,), (3,), (2, 3)]
DTYPES = [np.int32, np.int32, np.bool_, np.int32, np.bool_]
SAMPLERS = [
    Sampler(temperature=1.0, seed=3),
    Sampler(temperature=0.7, top_k=3, seed=2**63, sequence=9),
    Sampler(temperature=1.4, top_k=6, top_p=0.9, min_p=0.05, logit_bias={0: 0.5, 1: -np.inf}, seed=1),
]


@st.composite
def cases(draw):
    """Any int32; what is drawn is the next guess everywhere, nearly everywhere, here and there, or nowhere."""
    shape = (*draw(st.sampled_from(LEADING)), draw(st.sampled_from(LENGTHS)))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    iterate = random.integers(-(2**31), 2**31, shape).astype(np.int32)
    differs = random.random(shape) < draw(st.sampled_from([0, 0.01, 0.1, 1]))
    flips = np.where(differs, 1 << random.integers(0, 32, shape), 0).astype(np.uint32).view(np.int32)
    return iterate, np.roll(iterate, -1, axis=-1) ^ flips


def assert_equal(got, want):
    for field, ours, meant, dtype in zip(got._fields, got, want, DTYPES, strict=True):
        assert ours.dtype == dtype, field
        np.testing.assert_array_equal(ours, meant, field)


@given(case=cases())
def test_matches_reference(isa, case):
    iterate, drawn = case
    statistics = RowStatistics.empty(iterate.shape)
    statistics.argmax[...] = drawn
    want = reference_jacobi_step(iterate, drawn)
    assert_equal(jacobi_step(iterate, drawn), want)
    assert_equal(jacobi_step(iterate, statistics), reference_jacobi_step(iterate, statistics))
    assert_equal(jacobi_step(iterate, statistics), want)


@given(case=cases())
def test_the_fields_agree(isa, case):
    iterate, drawn = case
    step = jacobi_step(iterate, drawn)
    np.testing.assert_array_equal(step.next[..., 0], iterate[..., 0])
    np.testing.assert_array_equal(step.next[..., 1:], drawn[..., :-1])
    np.testing.assert_array_equal(step.bonus, drawn[..., -1])
    np.testing.assert_array_equal(step.stationary, step.next == iterate)
    np.testing.assert_array_equal(step.prefix, fixed_point_prefix(iterate, step.next))
    np.testing.assert_array_equal(step.converged, step.stationary.all(axis=-1))
    assert set(np.unique(step.stationary.view(np.int8))) <= {0, 1}


@given(
    shape=st.sampled_from([(1,), (17,), (2, 5)]),
    vocab=st.sampled_from([2, 7, 40]),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_draws_from_logits_as_the_reference_does(isa, shape, vocab, seed, data):
    random = np.random.default_rng(seed)
    logits = np.round(random.standard_normal((*shape, vocab)) * 2, 1).astype(np.float32)  # rounded: there are ties
    iterate = random.integers(0, vocab, shape).astype(np.int32)
    positions = random.integers(0, 10000, shape).astype(np.int32)
    greedy = jacobi_step(iterate, logits)
    assert_equal(greedy, reference_jacobi_step(iterate, logits))
    assert_equal(greedy, jacobi_step(iterate, row_statistics(logits)))
    assert_equal(greedy, jacobi_step(iterate, logits, sampler=Sampler(seed=5), positions=positions))
    sampler = data.draw(st.sampled_from(SAMPLERS))
    rows = logits.reshape(-1, vocab), sampler, positions.reshape(-1)
    step = jacobi_step(iterate, logits, sampler=sampler, positions=positions)
    assert_equal(step, jacobi_step(iterate, sample(*rows).reshape(shape)))
    # As far as the two best keys are further apart than their doubt (test_sample.py: below 2^-15), and thresholds than theirs.
    drawn = reference_sample(*rows)
    best = np.sort(drawn.keys, axis=1)[:, -2:]
    assume((best[:, 1] - best[:, 0] > 2.0**-15).all() and (drawn.slack > 2.0**-20).all())
    assert_equal(step, reference_jacobi_step(iterate, logits, sampler=sampler, positions=positions))


@given(case=cases())
def test_writes_nothing_outside_its_outputs(isa, case):
    iterate, drawn = (np.pad(tokens.reshape(-1), 16, constant_values=77) for tokens in case)  # as around the outputs
    rows, n = case[0][..., 0].size, case[0].shape[-1]
    sizes = [rows * n, rows, rows * n, rows, rows]
    outputs = [
        np.full(size + 32, 77, np.int8 if dtype is np.bool_ else dtype)
        for size, dtype in zip(sizes, DTYPES, strict=True)
    ]
    lib.fd_jacobi_step(
        rows, n, pointer(iterate[16:]), pointer(drawn[16:]), *(pointer(output[16:]) for output in outputs)
    )
    for output, want in zip(outputs, jacobi_step(*case), strict=True):
        assert (output[:16] == 77).all() and (output[-16:] == 77).all()
        np.testing.assert_array_equal(output[16:-16], np.ravel(want))
    for padded, tokens in zip((iterate, drawn), case, strict=True):
        np.testing.assert_array_equal(padded[16:-16], tokens.reshape(-1))


@given(
    leading=st.sampled_from([(), (4,)]), n=st.sampled_from([1, 2, 3, 8, 16, 17, 40]), modulus=st.sampled_from([2, 3, 10, 49152]),
    density=st.sampled_from([0, 0.1, 1]), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_iterating_solves_any_triangular_system(isa, leading, n, modulus, density, seed):
    """y[i] = b[i] + sum of A[i, j] y[j] over j < i, mod V: the seed y[0] = b[0], n - 1 guesses, and y[n] as the bonus."""
    random = np.random.default_rng(seed)
    b = random.integers(0, modulus, (*leading, n + 1))
    a = np.tril(random.integers(0, modulus, (*leading, n + 1, n + 1)), -1) * (random.random((n + 1, n + 1)) < density)
    solution = np.zeros_like(b)
    for i in range(n + 1):
        solution[..., i] = (b[..., i] + (a[..., i, :] * solution).sum(axis=-1)) % modulus
    iterate = random.integers(0, modulus, (*leading, n)).astype(np.int32)
    iterate[..., 0] = b[..., 0]
    final = np.ones(leading, int)  # the seed
    for _ in range(n):
        said = (b[..., 1:] + np.einsum("...ij,...j->...i", a[..., 1:, :n], iterate.astype(np.int64))) % modulus
        step = jacobi_step(iterate, said.astype(np.int32))
        assert (step.prefix >= np.minimum(final + 1, n)).all()
        known = np.arange(n) < np.expand_dims(step.prefix, -1)
        assert (step.next == solution[..., :n])[known].all()
        assert step.stationary[np.arange(n) < np.expand_dims(final, -1)].all()
        assert (step.bonus == solution[..., n])[step.converged].all()
        iterate, final = step.next, step.prefix
    assert step.converged.all()
    np.testing.assert_array_equal(iterate, solution[..., :n])


@given(
    n=st.sampled_from([1, 2, 7, 16, 17]), vocab=st.sampled_from([2, 5, 30]), start=st.integers(0, 1000), seed=st.integers(0, 2**32),
    sampler=st.sampled_from([None, *SAMPLERS]),
)  # fmt: skip
def test_the_fixed_point_is_the_text_drawn_one_token_at_a_time(isa, n, vocab, start, seed, sampler):
    """Logits from a table, its row chosen by a hash of all tokens so far."""
    random = np.random.default_rng(seed)
    table = random.normal(0, 2, (64, vocab)).astype(np.float32)

    def logits_after(text):
        chosen, rows = 7, []
        for token in text:
            chosen = (chosen * 31 + int(token) + 1) % 64
            rows.append(chosen)
        return table[rows]

    positions = np.arange(start + 1, start + 1 + n, dtype=np.int32)
    text = [int(random.integers(0, vocab))]
    for position in positions:
        last = logits_after(text)[-1:]
        text.append(int(sample(last, sampler or Sampler(), np.array([position], np.int32))[0]))

    iterate, final = np.array([text[0], *random.integers(0, vocab, n - 1)], np.int32), 1
    for _ in range(n):
        drawing = {} if sampler is None else {"sampler": sampler, "positions": positions}
        step = jacobi_step(iterate, logits_after(iterate), **drawing)
        assert step.prefix >= min(final + 1, n) and step.next[: step.prefix].tolist() == text[: step.prefix]
        iterate, final = step.next, step.prefix
        if step.converged:
            break
    assert step.converged and iterate.tolist() == text[:n] and step.bonus == text[n]


def test_known_steps(isa):
    def step(iterate, drawn):
        return [
            np.asarray(field).tolist() for field in jacobi_step(np.array(iterate, np.int32), np.array(drawn, np.int32))
        ]

    assert step([5], [6]) == [[5], 1, [True], 6, True]
    assert step([5, 1, 1], [7, 1, 9]) == [[5, 7, 1], 2, [True, False, True], 9, False]
    # The last is corrected: all of `next` is final, but the bonus was drawn after another token.
    assert step([5, 7, 1], [7, 2, 9]) == [[5, 7, 2], 3, [True, True, False], 9, False]
    assert step([5, 7, 2], [7, 2, 4]) == [[5, 7, 2], 3, [True, True, True], 4, True]


def test_a_single_iterate_gives_scalars(isa):
    step = jacobi_step(np.array([5, 6], np.int32), np.array([6, 7], np.int32))
    assert (
        isinstance(step.prefix, np.int32) and isinstance(step.bonus, np.int32) and isinstance(step.converged, np.bool_)
    )


@pytest.mark.parametrize("sampler", [None, *SAMPLERS])
def test_what_is_wrong_in_logits_is_reported(isa, sampler):
    iterate = np.zeros((2, 3), np.int32)
    drawing = {"sampler": sampler, "positions": None if sampler is None else iterate}
    logits = np.zeros((2, 3, 20), np.float32)
    logits[1, 1, 4] = np.nan
    with pytest.raises(NotFiniteError, match="row 4"):
        jacobi_step(iterate, logits, **drawing)
    logits[1, 1] = -np.inf
    with pytest.raises(ArgumentError, match="row 4: every token is banned"):
        jacobi_step(iterate, logits, **drawing)


LOGITS = np.zeros((2, 3, 4), np.float32)
WARM = Sampler(temperature=1.0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"iterate": [1, None]}, "iterate must hold integers"),
        ({"iterate": np.zeros((2, 3))}, "iterate must have dtype int32, got float64"),
        ({"iterate": np.array(3, np.int32)}, r"iterate must have shape \(\.\.\., n\), got \(\)"),
        (
            {"iterate": np.zeros((2, 0), np.int32)},
            r"iterate must have at least one position, the seed; got shape \(2, 0\)",
        ),
        ({"target": {1, 2}}, "target must be int32 tokens, RowStatistics or float32 logits, got {1, 2}"),
        ({"target": np.zeros((2, 3))}, "target must have dtype float32, got float64"),
        ({"target": np.zeros((2, 4), np.int32)}, r"target must have shape \(2, 3\), got \(2, 4\)"),
        ({"target": RowStatistics.empty((3,))}, r"target\.argmax must have shape \(2, 3\), got \(3,\)"),
        ({"target": LOGITS[0]}, r"target must have shape \(2, 3, vocab\), got \(3, 4\)"),
        ({"target": LOGITS[..., :0]}, r"target must have at least one column, got shape \(2, 3, 0\)"),
        ({"sampler": WARM}, "sampler must be None where target holds drawn tokens, got Sampler"),
        (
            {"positions": np.zeros((2, 3), np.int32)},
            "positions must be None where target holds drawn tokens, got ndarray",
        ),
        (
            {"target": RowStatistics.empty((2, 3)), "sampler": WARM},
            r"sampler must be None where target\.argmax holds drawn tokens, got Sampler",
        ),
        ({"target": LOGITS, "sampler": 1.0}, "sampler must be a Sampler or None, got float"),
        ({"target": LOGITS, "sampler": Sampler(repetition_penalty=1.5)}, "or presence penalty: draw with `sample`"),
        ({"target": LOGITS, "sampler": Sampler(presence_penalty=0.5)}, "or presence penalty: draw with `sample`"),
        ({"target": LOGITS, "sampler": WARM}, r"positions must be int32 \(2, 3\) at temperature 1\.0, got None"),
        (
            {"target": LOGITS, "sampler": WARM, "positions": np.zeros(6, np.int32)},
            r"positions must have shape \(2, 3\), got \(6,\)",
        ),
        ({"target": LOGITS, "positions": np.zeros((2, 3))}, "positions must have dtype int32, got float64"),
        (
            {"target": LOGITS, "sampler": Sampler(logit_bias={4: 1.0})},
            "logit_bias names token 4, the logits have 4 columns",
        ),
    ],
)
def test_refuses(change, text):
    tokens = np.zeros((2, 3), np.int32)
    with pytest.raises(ArgumentError, match=text):
        jacobi_step(**({"iterate": tokens, "target": tokens} | change))
