"""jacobi_step against its reference, on every level; iterating it reaches the text of one token at a time; edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import RowStatistics, Sampler, fixed_point_prefix, jacobi_step, row_statistics, sample
from fastdistill.kernels.boundary import lib, pointer
from fastdistill.testing import strategies
from fastdistill.testing.cases.fixed_point.jacobi_step import DTYPES, SAMPLERS, check, same_steps

TOKENS = strategies.jacobi_step(targets=["tokens"])


@given(case=TOKENS)
def test_matches_reference(isa, case):
    step = check(case)
    statistics = RowStatistics.empty(case["iterate"].shape)
    statistics.argmax[...] = case["target"]
    same_steps(check(case | {"target": statistics}), step)


@given(case=strategies.jacobi_step(targets=["drawn"]))
def test_draws_as_the_reference_does(isa, case):
    check(case)


@given(case=TOKENS)
def test_the_fields_agree(isa, case):
    iterate, drawn = case.values()
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
    greedy = check({"iterate": iterate, "target": logits})
    same_steps(greedy, jacobi_step(iterate, row_statistics(logits)))
    same_steps(greedy, jacobi_step(iterate, logits, sampler=Sampler(seed=5), positions=positions))
    sampler = data.draw(st.sampled_from(SAMPLERS))
    rows = logits.reshape(-1, vocab), sampler, positions.reshape(-1)
    step = check({"iterate": iterate, "target": logits, "sampler": sampler, "positions": positions})
    same_steps(step, jacobi_step(iterate, sample(*rows).reshape(shape)))


@given(case=TOKENS)
def test_writes_nothing_outside_its_outputs(isa, case):
    iterate, drawn = (
        np.pad(tokens.reshape(-1), 16, constant_values=77) for tokens in case.values()
    )  # as around the outputs
    rows, n = case["iterate"][..., 0].size, case["iterate"].shape[-1]
    sizes = [rows * n, rows, rows * n, rows, rows]
    outputs = [
        np.full(size + 32, 77, np.int8 if dtype is np.bool_ else dtype)
        for size, dtype in zip(sizes, DTYPES, strict=True)
    ]
    lib.fd_jacobi_step(
        rows, n, pointer(iterate[16:]), pointer(drawn[16:]), *(pointer(output[16:]) for output in outputs)
    )
    for output, want in zip(outputs, jacobi_step(**case), strict=True):
        assert (output[:16] == 77).all() and (output[-16:] == 77).all()
        np.testing.assert_array_equal(output[16:-16], np.ravel(want))
    for padded, tokens in zip((iterate, drawn), case.values(), strict=True):
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
