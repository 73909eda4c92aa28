"""row_divergence against its reference, on every level, and the laws that divergences keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, NotFiniteError
from fastdistill.kernels import row_divergence, set_isa
from fastdistill.kernels.distill.divergence_call import floats
from fastdistill.kernels.distill.kinds import KINDS
from fastdistill.reference.distill.row_divergence import divergence, log_softmax, mixed, target
from fastdistill.reference.distill.row_divergence import row_divergence as reference_row_divergence
from fastdistill.testing import strategies
from fastdistill.testing.cases.distill.row_divergence import check, error, number_of, unsure

BETWEEN = [kind for kind in KINDS if kind not in ("soft_cross_entropy", "entropy")]  # 0 where the laws are equal
DETACHED = "adaptive_kl", "acceptance_hybrid"  # part of whose value is a constant for the gradient


def sides(kind, student, teacher):
    return student, None if kind == "entropy" else teacher


def parts(case):
    """Kind, parameter, student, teacher, and the other options."""
    options = dict(case)
    return *(options.pop(name) for name in ("kind", "parameter", "student", "teacher")), options


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8)
@given(data=st.data())
def test_matches_reference(isa, kind, data):
    check(data.draw(strategies.row_divergence(kinds=[kind])))


@given(case=strategies.row_divergence())
def test_same_bits_on_every_level_and_thread_count(isa, case):
    got = row_divergence(**case, threads=3)
    set_isa("scalar")
    want = row_divergence(**case)
    set_isa(isa)
    for one, other in zip(got, want, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8)
@given(data=st.data())
def test_gradient_is_the_derivative(isa, kind, data):
    """Central differences of the weighted sum along a direction, in float64; what is a constant for the gradient is held fixed."""
    case = data.draw(
        strategies.row_divergence(widths=[1, 5, 40], dtypes=[np.float64], kinds=[kind], shifts=[0])
    )  # whose steps are not rounded
    case["weights"] = np.maximum(case["weights"], 0.5)
    kind, parameter, student, teacher, options = parts(case)
    got = row_divergence(**case)
    along = np.random.default_rng(7).standard_normal(student.shape)

    def value(z):
        if kind in DETACHED:
            found = frozen(kind, parameter, z, student, teacher, options)
        else:
            found = row_divergence(**case | {"student": z}, gradient=False)
            found = found.values * options["scale"] + found.label_values * options["label_scale"]
        return (options["weights"] * found).sum()

    step = 1e-6
    slope = (value(student + step * along) - value(student - step * along)) / (2 * step)
    # Rounding of values over the step, and the third derivative times step^2: values and derivatives are within 100 of 1.
    np.testing.assert_allclose((got.gradient * along).sum(where=np.isfinite(student)), slope, rtol=1e-7, atol=2e-7)


def frozen(kind, parameter, z, student, teacher, options):
    """The value at z with the mixture's share at `student`, by the reference."""
    temperature = options["temperature"]
    of_teacher = target(teacher, temperature, False)
    log_q = log_softmax(student / temperature)
    share = {"adaptive_kl": heads, "acceptance_hybrid": trust}[kind](log_q, of_teacher[1], parameter)
    log_z = log_softmax(z / temperature)
    forward, reverse, variation = (
        divergence(other, None, z / temperature, log_z, of_teacher) for other in ("forward_kl", "reverse_kl", "total_variation")
    )  # fmt: skip
    found = mixed(share, forward, 1 - share, reverse if kind == "adaptive_kl" else variation)[0] * options["scale"]
    plain = log_softmax(z)
    for row, label in enumerate(options["labels"] if options["labels"] is not None else []):
        found[row] -= options["label_scale"] * plain[row, label] if label >= 0 else 0
    return found


def heads(log_q, log_p, share):
    from fastdistill.reference.distill.row_divergence import head_share

    return np.array([head_share(np.exp(p), np.exp(q), share) for p, q in zip(log_p, log_q, strict=True)])


def trust(log_q, log_p, eta):
    return np.exp(-eta * np.minimum(np.exp(log_p), np.exp(log_q)).sum(axis=1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", BETWEEN)
def test_equal_laws_are_no_way_apart_to_the_bit(isa, kind, dtype):
    for width in (1, 17, 5000):
        student = (np.random.default_rng(width).standard_normal((3, width)) * 5).astype(dtype)
        student[:, 1::3] = -np.inf
        for temperature in (0.5, 1.0, 2.0):
            got = row_divergence(student, student.copy(), kind, temperature=temperature)
            # -log of the overlap and its kin stay within the rounding of a sum that is 1.
            assert np.abs(got.values).max() == 0, kind
            assert not got.gradient.any(), kind


@given(case=strategies.row_divergence(dtypes=[np.float64]))
def test_a_shift_of_all_logits_changes_nothing_and_gradients_sum_up_to_nothing(isa, case):
    kind, _, student, teacher, _ = parts(case)
    one = row_divergence(**case)
    if kind != "logit_mse":
        far = None if teacher is None else teacher - 4.0
        moved = row_divergence(**case | {"student": student + 16.0, "teacher": far})
        # Logits up to 1e3 and 16 more round to 2^-43; the gradient of logits that are off so far.
        np.testing.assert_allclose(moved.values, one.values, rtol=0, atol=1e-9)
        np.testing.assert_allclose(moved.gradient, one.gradient, rtol=0, atol=1e-9)
        slope = np.exp(one.values.max(initial=0)) if kind in ("log_acceptance", "renyi") else 1  # of logarithms
        np.testing.assert_allclose(one.gradient.sum(axis=1), 0, atol=1e-11 + 2e-14 * slope)
    if kind not in ("soft_cross_entropy", "entropy"):
        assert (one.values >= -1e-12).all()


@given(
    case=strategies.row_divergence(widths=[2, 40, 1025], dtypes=[np.float64], kinds=[*BETWEEN, "soft_cross_entropy"])
)
def test_what_one_kind_says_of_another(isa, case):
    _, _, student, teacher, options = parts(case)
    teacher = np.where(np.isfinite(student) & np.isneginf(teacher), teacher.max(axis=1, keepdims=True) - 3, teacher)

    def value(kind, parameter=None, student=student, teacher=teacher):
        return row_divergence(
            student, teacher, kind, parameter, temperature=options["temperature"], gradient=False
        ).values

    close = {"rtol": 1e-9, "atol": 1e-11}
    forward, reverse, variation = value("forward_kl"), value("reverse_kl"), value("total_variation")
    np.testing.assert_allclose(value("jsd", 0.2), value("jsd", 0.8, student=teacher, teacher=student), **close)
    np.testing.assert_allclose(value("reverse_kl", student=teacher, teacher=student), forward, **close)
    np.testing.assert_allclose(value("jeffreys"), forward + reverse, **close)
    if (
        variation.max(initial=0) < 0.999
    ):  # or 1 - variation has lost its digits, which the logarithm of acceptance has not
        np.testing.assert_allclose(value("log_acceptance"), -np.log1p(-variation), **close)
    entropy_of_teacher = row_divergence(teacher, None, "entropy", temperature=options["temperature"]).values
    np.testing.assert_allclose(value("soft_cross_entropy") - entropy_of_teacher, forward, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(value("alpha", 0.5), value("alpha", 0.5, student=teacher, teacher=student), **close)
    np.testing.assert_allclose(value("renyi", 0.3), np.log1p(-0.21 * value("alpha", 0.3)) / -0.7, **close)
    near = {
        "student": student / 8,
        "teacher": teacher / 8,
    }  # ratios of probabilities of e^8 at most, for limits to first order
    forward_near, reverse_near = value("forward_kl", **near), value("reverse_kl", **near)
    for kind, limit in (("alpha", 1e-6), ("skew_reverse_kl", 1e-6)):
        np.testing.assert_allclose(value(kind, limit, **near), reverse_near, rtol=1e-2, atol=1e-4)
    for kind, limit in (("alpha", 1 - 1e-6), ("renyi", 1 - 1e-6), ("skew_kl", 1e-6)):
        np.testing.assert_allclose(value(kind, limit, **near), forward_near, rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose(value("jsd", 1e-6, **near) / 1e-6, forward_near, rtol=1e-2, atol=1e-4)
    trusted = np.exp(-2 * (1 - variation))
    np.testing.assert_allclose(value("acceptance_hybrid", 2), trusted * forward + (1 - trusted) * variation, **close)
    assert (2 * variation**2 <= forward + 1e-12).all()  # Pinsker
    for kind, parameter, other in [
        ("jsd", 0, "forward_kl"), ("jsd", 1, "reverse_kl"), ("alpha", 0, "reverse_kl"), ("alpha", 1, "forward_kl"), ("renyi", 1, "forward_kl"),
        ("skew_kl", 0, "forward_kl"), ("skew_reverse_kl", 0, "reverse_kl"), ("mixed_kl", 0, "reverse_kl"), ("mixed_kl", 1, "forward_kl"),
        ("acceptance_hybrid", 0, "forward_kl"),
    ]:  # fmt: skip
        np.testing.assert_array_equal(value(kind, parameter), value(other))


@given(case=strategies.row_divergence())
def test_in_place_and_without_gradient(isa, case):
    student, want = case["student"], row_divergence(**case)
    alone = row_divergence(**case, gradient=False)
    assert alone.gradient is None
    assert (
        alone.values.tobytes() == want.values.tobytes() and alone.label_values.tobytes() == want.label_values.tobytes()
    )
    guarded = np.full((student.shape[0] + 2, student.shape[1]), 7, student.dtype)
    inner = guarded[1:-1]
    inner[:] = student
    got = row_divergence(**case | {"student": inner}, out=inner)
    assert got.gradient is inner and inner.tobytes() == want.gradient.tobytes()
    assert (guarded[[0, -1]] == 7).all()


@given(
    case=strategies.row_divergence(dtypes=[np.float32]),
    kinds=st.tuples(*[st.sampled_from(["f32", "f16", "bf16", "f64"])] * 2),
)
def test_logits_of_any_dtype_are_what_they_stand_for(isa, case, kinds):
    kind, parameter, student, teacher, options = parts(case)

    def stored(z, name):
        if name == "bf16":
            return (np.ascontiguousarray(z).view(np.uint32) >> 16).astype(np.uint16)
        return z.astype({"f32": np.float32, "f16": np.float16, "f64": np.float64}[name])

    student = stored(student, "f32" if kinds[0] == "f64" else kinds[0])
    teacher = None if teacher is None else stored(teacher, kinds[1])
    got = row_divergence(student, teacher, kind, parameter, **options)
    plain = None if teacher is None else floats(teacher).astype(np.float32)
    want = row_divergence(floats(student).astype(np.float32), plain, kind, parameter, **options)
    assert all(one.tobytes() == other.tobytes() for one, other in zip(got, want, strict=True))


@given(case=strategies.row_divergence())
def test_a_teacher_may_be_a_law(isa, case):
    kind, parameter, student, teacher, options = parts(case)
    if kind in ("entropy", "logit_mse"):
        return
    law = np.exp(log_softmax(teacher.astype(np.float64))).astype(student.dtype)
    law[law < 1e-36] = 0  # not so small that its logarithm has lost digits
    if kind not in ("jsd", "total_variation", "probability_mse"):
        student[law == 0] = -np.inf
    if options["labels"] is not None:
        labels = options["labels"]
        labels[:] = [label if label >= 0 and student[row, label] > -np.inf else -1 for row, label in enumerate(labels)]
    got = row_divergence(student, law, kind, parameter, **options, teacher_is_law=True)
    with np.errstate(divide="ignore"):
        want = row_divergence(student, np.log(law.astype(np.float64)).astype(student.dtype), kind, parameter, **options)
    floor = np.log(np.maximum(law.astype(np.float64), 1e-300))
    tolerance = 8 * error(kind, parameter, student, floor.astype(student.dtype), options["temperature"])
    np.testing.assert_allclose(got.values, want.values, rtol=0, atol=tolerance)
    slack = 4 * unsure(kind, student, floor, options["temperature"])
    np.testing.assert_array_less(np.abs(got.gradient - want.gradient), 16 * tolerance + slack + 1e-300)


@pytest.mark.parametrize(
    "kind", ["forward_kl", "reverse_kl", "jeffreys", "mixed_kl", "jsd", "skew_kl", "skew_reverse_kl", "alpha", "renyi"]
)
@given(seed=st.integers(0, 99), step=st.sampled_from([1e-3, 1e-2, 0.1, 1.0]), peak=st.sampled_from([0, 12]))
def test_near_0_digits_are_those_of_the_difference(isa, kind, seed, step, peak):
    """Of logits that are `step` apart D is about step^2 / 2, far below the rounding of a sum of probabilities; but no digit of it is lost
    that logits and probabilities still have: their error, some units, over the step."""
    random = np.random.default_rng(seed)
    teacher = random.standard_normal((3, 1500)).astype(np.float32)
    teacher[:, 7] += peak
    student = teacher + (step * random.standard_normal(teacher.shape)).astype(np.float32)
    got = row_divergence(student, teacher, kind, gradient=False).values
    exact = [each.astype(np.float64) for each in (student, teacher)]
    want = row_divergence(*exact, kind, gradient=False).values
    np.testing.assert_allclose(got, want, rtol=32 * 2.0**-24 * np.abs(teacher).max() / min(step, 0.1))
    # The float64 one against twice as many digits' worth of series: sum p (e^-x - 1 + x), x = log (p / q).
    if kind == "forward_kl" and step < 0.1:
        log_q, log_p = (log_softmax(each.astype(np.longdouble)) for each in exact)
        x = log_p - log_q
        np.testing.assert_allclose(want, (np.exp(log_p) * (np.expm1(-x) + x)).sum(axis=1).astype(float), rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_logit_may_lie_in_any_chunk(isa, kind, dtype):
    """So far above the first chunk's that e^x of the difference is beyond all floats."""
    student, teacher = np.random.default_rng(0).standard_normal((2, 2, 2100)).astype(dtype)
    for side in (student, teacher):
        side[0, 1500:1600] += 1000
        side[1, 2090:] += 1000
    both, number = sides(kind, student, teacher), number_of(kind, None)
    got, want = row_divergence(*both, kind), reference_row_divergence(*both, kind, number)
    near = 1e-3 if dtype == np.float32 else 1e-11  # logits of 1000 are off by 3e-5
    np.testing.assert_allclose(got.values, want[0], rtol=near)
    kinks = unsure(kind, student, teacher, 1.0)
    np.testing.assert_array_less(np.abs(got.gradient - want[2]), near * max(1, np.abs(want[2]).max()) + kinks)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_smallest_probabilities_of_a_law(isa, dtype):
    """Subnormal ones too; numbers below 0 and beyond all are none, beside whatever else."""
    tiny = np.finfo(dtype).smallest_subnormal
    for smallest in (tiny, 1000 * tiny, 8 * np.finfo(dtype).tiny, dtype(1e-31)):
        law = np.full((1, 33), smallest, dtype)
        law[0, 5] = 1
        student = np.zeros((1, 33), dtype)
        want = 32 / 33 * (np.log(1 / 33) - np.log(np.float64(smallest))) + np.log(1 / 33) / 33
        found = row_divergence(student, law, "reverse_kl", teacher_is_law=True)
        np.testing.assert_allclose(found.values, want, rtol=8 * np.finfo(dtype).eps)
    for bad, text in (
        (-0.5, "row 0 is no law"),
        (-tiny, "row 0 is no law"),
        (np.inf, "holds a NaN or"),
        (np.nan, "holds a NaN or"),
    ):
        law[0, 20] = bad
        for kind in ("forward_kl", "jsd", "total_variation"):
            with pytest.raises(NotFiniteError, match=text):
                row_divergence(student, law, kind, teacher_is_law=True)


def test_what_is_multiplied_by_0_has_no_part_though_it_were_infinite(isa):
    flat, half = np.zeros((1, 4)), np.array([[0, 0, -np.inf, -np.inf]])
    whole = row_divergence(flat, half, "adaptive_kl", 1.0)  # all tokens are head: the forward KL alone
    np.testing.assert_allclose(whole.values, np.log(2), rtol=1e-14)
    np.testing.assert_allclose(whole.gradient, [[-0.25, -0.25, 0.25, 0.25]], rtol=1e-14)
    trusting = row_divergence(half, flat, "acceptance_hybrid", 1e6)  # no KL at all
    np.testing.assert_allclose(trusting.values, 0.5, rtol=1e-14)
    assert np.isfinite(trusting.gradient).all()


def test_a_gradient_beyond_its_reals_is_refused(isa):
    student, teacher = np.random.default_rng(0).standard_normal((2, 3, 40)).astype(np.float32)
    for options in (
        {"scale": 1e30},
        {"scale": 0.0, "label_scale": 1e30, "labels": [0, 1, 2]},
        {"temperature": 1e-6, "scale": 1e30},
    ):
        for heavy in (1e20, 1e300):
            with pytest.raises(NotFiniteError, match="row 1: its gradient is beyond float32: weights"):
                row_divergence(student, teacher, weights=[1, heavy, 0], **options | {"scale": options["scale"] * 1e-6})
    wide = row_divergence(student.astype(np.float64), teacher, weights=[1, 1e20, 0], scale=1e30)
    assert np.isfinite(wide.gradient).all() and np.abs(wide.gradient).max() > 1e40
    assert row_divergence(student, teacher, weights=[1, 1e20, 0], scale=1e30, gradient=False).gradient is None


def test_says_what_is_beyond_floats_where_nothing_is_banned(isa):
    flat, far = np.zeros((2, 20), np.float32), np.zeros((2, 20), np.float32)
    flat[1, 3], far[1, 4] = 1000, 1000
    for kind in ("log_acceptance", "renyi"):
        with pytest.raises(
            NotFiniteError, match=f"row 1: {kind} is beyond float32: logits over temperature are too far apart"
        ):
            row_divergence(flat, far, kind)
    with pytest.raises(NotFiniteError, match="row 1 holds numbers that are beyond float32, which it is computed in"):
        row_divergence(flat, np.where(far > 0, 1e300, 0.0))


def test_a_row_of_weight_0_is_not_read(isa):
    student = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)
    teacher = student[::-1].copy()
    want = row_divergence(student[[0, 2]], teacher[[0, 2]])
    student[1], teacher[1] = np.nan, np.inf
    got = row_divergence(student, teacher, weights=[1, 0, 1], labels=[3, 3, 3])
    assert got.values[1] == got.label_values[1] == 0 and not got.gradient[1].any()
    np.testing.assert_array_equal(got.values[[0, 2]], want.values)
    np.testing.assert_array_equal(got.gradient[[0, 2]], want.gradient)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits(isa, kind, dtype):
    """Equal ones of 1e4, and ones as far apart as floats are: no NaN comes of it."""
    flat = np.full((1, 1500), 1e4, dtype)
    got = row_divergence(*sides(kind, flat, flat.copy()), kind)
    want = np.log(1500) if kind in ("entropy", "soft_cross_entropy") else 0
    np.testing.assert_allclose(got.values, want, rtol=1e-6)
    assert np.abs(got.gradient).max() < 1e-6
    if kind in ("jsd", "total_variation", "probability_mse", "entropy"):
        far = np.zeros((2, 1500), dtype)
        far[0, 3], far[1, 1200] = 3e38, 3e38
        got = row_divergence(*sides(kind, far[:1], far[1:]), kind)
        bound = {"jsd": np.log(2), "total_variation": 1, "probability_mse": 2 / 1500, "entropy": 0}[kind]
        np.testing.assert_allclose(got.values, bound, rtol=1e-6)
        assert np.isfinite(got.gradient).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spread", [1.0, 10.0, 30.0])
def test_logarithms_of_what_laws_have_in_common_keep_their_digits(isa, spread, dtype):
    """Acceptance rates down to e^-50, of which 1 less the distance would say nothing; their slope is 1 over that."""
    student, teacher = (np.random.default_rng(3).standard_normal((2, 6, 40)) * spread).astype(dtype)
    log_q, log_p = log_softmax(student.astype(np.float64)), log_softmax(teacher.astype(np.float64))
    p, q = np.exp(log_p), np.exp(log_q)
    # A logarithm of L is off by some units of L, and a probability, of itself, by as much: 16 roundings on the way.
    near = dict.fromkeys(("rtol", "atol"), 16 * np.finfo(dtype).eps / 2 * max(1, -log_q.min(), -log_p.min()))
    accepted = np.minimum(p, q).sum(axis=1, keepdims=True)
    assert spread == 1 or accepted.min() < 1e-6
    found = row_divergence(student, teacher, "log_acceptance")
    np.testing.assert_allclose(found.values, -np.log(accepted[:, 0]), **near)
    below = np.where(q < p, q, 0)
    np.testing.assert_allclose(found.gradient, (q * below.sum(axis=1, keepdims=True) - below) / accepted, **near)
    for alpha in (0.3, 0.5):
        log_product = alpha * log_p + (1 - alpha) * log_q
        log_sum = np.logaddexp.reduce(log_product, axis=1)
        found = row_divergence(student, teacher, "renyi", alpha)
        np.testing.assert_allclose(found.values, log_sum / (alpha - 1), **near)
        np.testing.assert_allclose(found.gradient, q - np.exp(log_product - log_sum[:, None]), **near)
        alone = row_divergence(student, teacher, "renyi", alpha, gradient=False)
        assert alone.values.tobytes() == found.values.tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, "bans"])
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_names_the_side_and_the_row_that_is_no_logits(isa, kind, bad, side):
    logits = {"student": np.zeros((3, 40), np.float32), "teacher": np.zeros((3, 40), np.float32)}
    logits[side][2] = -np.inf if bad == "bans" else logits[side][2]
    if bad != "bans":
        logits[side][2, 39] = bad
    if (kind, side) != ("entropy", "teacher"):
        with pytest.raises(NotFiniteError, match=f"{side}: row 2 holds a NaN or"):
            row_divergence(*sides(kind, **logits), kind)


@pytest.mark.parametrize(
    ("kind", "side"),
    [
        ("forward_kl", "student"), ("soft_cross_entropy", "student"), ("skew_reverse_kl", None), ("skew_kl", None), ("jsd", None),
        ("reverse_kl", "teacher"), ("jeffreys", "student"), ("jeffreys", "teacher"), ("mixed_kl", "teacher"), ("logit_mse", "teacher"),
        ("alpha", None), ("renyi", None), ("total_variation", None), ("log_acceptance", None), ("probability_mse", None),
    ],
)  # fmt: skip
def test_a_ban_on_one_side(isa, kind, side):
    """Where the formula has no number it is an error that names row and token; otherwise it is what the formula says."""
    logits = {"student": np.zeros((2, 20)), "teacher": np.zeros((2, 20))}
    for banned in [side] if side else logits:
        alone = {name: z.copy() for name, z in logits.items()}
        alone[banned][1, 5] = -np.inf
        if side:
            with pytest.raises(NotFiniteError, match=rf"row 1: {kind} is infinite.*token 5.*jsd"):
                row_divergence(**alone, kind=kind)
        else:
            want = reference_row_divergence(**alone, kind=kind, parameter=number_of(kind, None))
            got = row_divergence(**alone, kind=kind)
            np.testing.assert_allclose(got.values, want[0], atol=1e-14)
            np.testing.assert_allclose(got.gradient, want[2], atol=1e-14)


def test_a_banned_label_is_named(isa):
    student = np.zeros((2, 20), np.float32)
    student[1, 4] = -np.inf
    with pytest.raises(NotFiniteError, match="row 1: its label 4 is banned by the student"):
        row_divergence(student, student, labels=[4, 4], label_scale=1.0)
    with pytest.raises(NotFiniteError, match="teacher: row 0 is no law: it holds a number below 0, or none above"):
        row_divergence(student[:1], np.full((1, 20), -0.5, np.float32), teacher_is_law=True)


def test_the_head_of_adaptive_kl_ends_where_its_share_does(isa):
    """Ties by the lowest token; one token that is more than the share is the head; a flat law is cut at its share."""
    from fastdistill.reference.distill.row_divergence import head_share

    for p in ([0.6, 0.2, 0.2], [0.25, 0.25, 0.25, 0.25], [0.1] * 10, [0.5, 0.25, 0.25], [0.2, 0.3, 0.5]):
        p = np.array(p, np.float64)[None]
        q = np.roll(p, 1) * np.arange(1, p.size + 1)
        q /= q.sum()
        for share in (0.05, 0.45, 0.55, 0.85):
            h = head_share(p[0], q[0], share)
            want = h * (p * np.log(p / q)).sum() + (1 - h) * (q * np.log(q / p)).sum()
            for dtype in (np.float32, np.float64):
                got = row_divergence(np.log(q).astype(dtype), np.log(p).astype(dtype), "adaptive_kl", share).values
                np.testing.assert_allclose(got, want, rtol=1e-5 if dtype == np.float32 else 1e-12)


def test_the_head_of_adaptive_kl_has_the_first_of_tokens_that_are_all_but_equal(isa):
    from fastdistill.reference.distill.row_divergence import head_share

    random = np.random.default_rng(2)
    for dtype, apart in ((np.float32, 1e-5), (np.float64, 1e-12)):
        teacher = np.where(random.random((1, 60)) < 0.5, 0, -apart).astype(dtype)  # equal ones, and others a hair below
        student = random.standard_normal((1, 60)).astype(dtype)
        log_p, log_q = (log_softmax(each.astype(np.float64)) for each in (teacher, student))
        for share in (0.21, 0.52, 0.83):
            h = head_share(np.exp(log_p)[0], np.exp(log_q)[0], share)
            want = h * (np.exp(log_p) * (log_p - log_q)).sum() + (1 - h) * (np.exp(log_q) * (log_q - log_p)).sum()
            got = row_divergence(student, teacher, "adaptive_kl", share).values
            np.testing.assert_allclose(got, want, rtol=1e-5 if dtype == np.float32 else 1e-10)


F32 = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"student": [[0.0]]}, "student must be a NumPy array"),
        ({"student": np.zeros((2, 3), np.int64)}, "student must have dtype float32"),
        ({"student": np.zeros((2, 0), np.float32)}, "at least one column"),
        ({"teacher": np.zeros((2, 4), np.float32)}, r"teacher must have shape \(2, 3\)"),
        ({"teacher": None}, "teacher must be a NumPy array"),
        ({"kind": "kl"}, "kind must be one of forward_kl, "),
        ({"kind": "entropy"}, "teacher must be None"),
        ({"parameter": 1.0}, "forward_kl takes no parameter, got 1.0"),
        ({"kind": "jsd", "parameter": 2.0}, r"parameter \(beta of jsd\) must lie in 0..1, got 2"),
        ({"kind": "renyi", "parameter": 0}, r"parameter \(alpha of renyi\) must not be 0, where it measures nothing"),
        ({"kind": "skew_kl", "parameter": 1}, r"parameter \(skew of skew_kl\) must not be 1"),
        (
            {"kind": "alpha", "parameter": 1e-6},
            r"parameter \(alpha of alpha\) must be an end or 1e-05 away from it in float32",
        ),
        ({"kind": "renyi", "parameter": 1 - 1e-12}, r"parameter \(alpha of renyi\) must be an end or 1e-05 away"),
        ({"temperature": 0.0}, "temperature must lie in"),
        ({"labels": [0, 3]}, "labels must be tokens below 3, or -1, got 3 in row 1"),
        ({"labels": [0]}, r"labels must have shape \(2,\)"),
        ({"weights": [np.nan, 1]}, "weights must be finite"),
        ({"scale": np.inf}, "scale must lie in"),
        ({"gradient": False, "out": F32.copy()}, "out is for the gradient"),
        ({"out": np.zeros((2, 3))}, "out must have dtype float32"),
        ({"threads": 0}, "threads must lie in"),
    ],
)
def test_refuses(change, text):
    with pytest.raises(ArgumentError, match=text):
        row_divergence(**{"student": F32, "teacher": F32.copy(), **change})


def test_the_gradient_may_take_the_students_place_and_no_other():
    student = np.zeros((2, 6), np.float32)
    with pytest.raises(ArgumentError, match="out must not overlap teacher"):
        row_divergence(student, teacher := student.copy(), out=teacher)
    with pytest.raises(ArgumentError, match="out must not overlap"):
        row_divergence(student[:1], student[1:], out=student[1:])


def test_the_page_lists_every_kind():
    page = (Path(__file__).parents[3] / "docs/kernels/distill/row_divergence.md").read_text()
    rows = []
    for name, kind in KINDS.items():
        number = f"`{kind.parameter.name}` {kind.parameter.default} |" if kind.parameter else "|"
        rows.append(
            f"| `{name}` | {kind.formula.replace(', of the student alone', '').replace('|', chr(92) + '|')} | {number}"
        )
    assert "\n".join(rows) in page
