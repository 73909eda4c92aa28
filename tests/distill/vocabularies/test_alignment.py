"""align_bytes: the smallest chunks of text that both sides' tokens cover, against a search of all pairs of spans."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.distill import align_bytes, chunk_weights, merge_chunks
from fastdistill.errors import ArgumentError


def offsets(*widths: int) -> np.ndarray:
    ends = np.cumsum(widths)
    return np.stack([ends - widths, ends], axis=1).astype(np.int32)


@st.composite
def tilings(draw, length=None):
    """The spans of tokens that fill a text, a few of them of no bytes."""
    length = draw(st.integers(0, 12)) if length is None else length
    cuts = sorted(draw(st.lists(st.integers(0, length), max_size=8)))
    edges = np.array([0, *cuts, length])
    spans = np.stack([edges[:-1], edges[1:]], axis=1)
    return spans if draw(st.booleans()) else spans[spans[:, 1] > spans[:, 0]]


@st.composite
def pairs(draw):
    first = draw(tilings())
    return first, draw(tilings(int(first[-1, 1]) if len(first) else 0))


@st.composite
def gapped(draw):
    """Spans that leave bytes out too."""
    return tuple(spans[[draw(st.booleans()) for _ in spans]] for spans in draw(pairs()))


def searched(teacher, student):
    """Every pair of runs of text tokens that cover the same bytes without a gap, of which no part does from its begin or to its end."""

    def runs(spans):
        found = set()
        for i in range(len(spans)):
            for end in range(i + 1, len(spans) + 1):
                run = spans[i:end]
                if (run[:, 1] > run[:, 0]).all() and (run[1:, 0] == run[:-1, 1]).all():
                    found.add((i, end, run[0, 0], run[-1, 1]))
        return found

    same = [(i, k, j, m, b, e) for i, k, b, e in runs(teacher) for j, m, b2, e2 in runs(student) if (b, e) == (b2, e2)]
    return sorted(
        chunk[:4] for chunk in same
        if not any(chunk[4] <= b and e <= chunk[5] and (b, e) != chunk[4:] for *_, b, e in same)
    )  # fmt: skip


@given(pair=pairs())
def test_chunks_of_two_tilings_are_all_that_there_are(pair):
    """Without tokens of no bytes: the chunks cover both sides once, and are the smallest."""
    teacher, student = (spans[spans[:, 1] > spans[:, 0]] for spans in pair)
    found = align_bytes(teacher, student)
    assert found.chunks.dtype == np.int32
    assert sorted(map(tuple, found.chunks.tolist())) == searched(teacher, student)
    assert found.teacher_dropped == found.student_dropped == 0
    for begin, side in ((0, teacher), (2, student)):
        assert found.chunks[:, begin].tolist() == [0, *found.chunks[:, begin + 1]][: len(found.chunks)]
        assert len(side) == (found.chunks[-1, begin + 1] if len(found.chunks) else 0)


@given(pair=st.one_of(pairs(), gapped()))
def test_every_chunk_is_the_same_bytes_on_both_sides(pair):
    teacher, student = pair
    found = align_bytes(teacher, student)
    used = [np.zeros(len(teacher), int), np.zeros(len(student), int)]
    for i0, i1, j0, j1 in found.chunks:
        sides = [teacher[i0:i1], student[j0:j1]]
        assert (sides[0][0, 0], sides[0][-1, 1]) == (sides[1][0, 0], sides[1][-1, 1])
        for spans in sides:
            assert (spans[1:, 0] == spans[:-1, 1]).all()
            assert len(spans) == 1 or (spans[:, 1] > spans[:, 0]).all()
        used[0][i0:i1] += 1
        used[1][j0:j1] += 1
    assert (used[0] <= 1).all() and (used[1] <= 1).all()
    assert found.teacher_dropped == (used[0] == 0).sum() and found.student_dropped == (used[1] == 0).sum()
    assert (np.diff(found.chunks, axis=0) > 0).all()


@given(pair=st.one_of(pairs(), gapped()))
def test_the_sides_may_be_exchanged(pair):
    there, back = align_bytes(*pair), align_bytes(*pair[::-1])
    np.testing.assert_array_equal(there.chunks, back.chunks[:, [2, 3, 0, 1]])


@given(spans=tilings())
def test_a_tokenization_beside_itself_is_a_chunk_a_token(spans):
    places = np.arange(len(spans))
    np.testing.assert_array_equal(align_bytes(spans, spans).chunks, np.stack([places, places + 1] * 2, axis=1))


def test_a_character_that_one_side_splits():
    """A character of 3 bytes: in one token, and in two that go on into the next character."""
    found = align_bytes(offsets(3, 3), offsets(1, 3, 2))
    assert found.chunks.tolist() == [[0, 2, 0, 3]]


def test_tokens_of_no_bytes_pair_with_their_like_alone():
    begin, text, end = [[0, 0]], offsets(2, 3), [[5, 5]]
    both = align_bytes([*begin, *text, *end], [*begin, *text, *end])
    assert both.chunks.tolist() == [[0, 1, 0, 1], [1, 2, 1, 2], [2, 3, 2, 3], [3, 4, 3, 4]]
    one = align_bytes([*begin, *text], [*text, *end])
    assert one.chunks.tolist() == [[1, 2, 0, 1], [2, 3, 1, 2]]
    assert (one.teacher_dropped, one.student_dropped) == (1, 1)
    two_to_one = align_bytes([*begin, *begin, *text], [*begin, *text])
    assert (two_to_one.teacher_dropped, two_to_one.student_dropped) == (2, 1)


def test_a_marker_within_what_the_other_side_has_in_one_token_drops_both():
    found = align_bytes([[0, 2], [2, 2], [2, 4], [4, 6]], offsets(4, 2))
    assert found.chunks.tolist() == [[3, 4, 1, 2]] and (found.teacher_dropped, found.student_dropped) == (3, 1)


def test_bytes_that_one_side_drops_drop_the_tokens_around():
    """A blank that belongs to a token of one side and to none of the other."""
    found = align_bytes([[0, 3], [4, 7], [7, 9]], [[0, 3], [3, 7], [7, 9]])
    assert found.chunks.tolist() == [[0, 1, 0, 1], [2, 3, 2, 3]] and found.teacher_dropped == 1
    for sides in ([[[0, 2], [3, 5]], offsets(5)], [offsets(5), [[0, 2], [3, 5]]]):  # within a chunk
        assert len(align_bytes(*sides).chunks) == 0


def test_long_texts_align():
    random = np.random.default_rng(0)
    sides = [offsets(*np.diff(np.unique([0, *random.integers(1, 400_000, 100_000), 400_000]))) for _ in range(2)]
    found = align_bytes(*sides)
    assert found.teacher_dropped == 0 and len(found.chunks) > 10_000


@given(pair=pairs(), seed=st.integers(0, 2**32))
def test_a_chunk_counts_where_all_of_its_tokens_do(pair, seed):
    chunks, random = align_bytes(*pair).chunks, np.random.default_rng(seed)
    masks = [random.random(len(spans)) < 0.7 for spans in pair]
    want = [masks[0][i0:i1].all() and masks[1][j0:j1].all() for i0, i1, j0, j1 in chunks]
    np.testing.assert_array_equal(chunk_weights(chunks, *masks), np.array(want, float))
    np.testing.assert_array_equal(chunk_weights(chunks), np.ones(len(chunks)))
    np.testing.assert_array_equal(
        chunk_weights(chunks, masks[0]), [float(masks[0][i0:i1].all()) for i0, i1, *_ in chunks]
    )


@given(pair=st.one_of(pairs(), gapped()), seed=st.integers(0, 2**32))
def test_merged_chunks_are_runs_of_chunks_that_adjoin(pair, seed):
    chunks = align_bytes(*pair).chunks
    closes = np.random.default_rng(seed).random(len(chunks)) < 0.5
    want: list[list[int]] = []
    for place, (i0, i1, j0, j1) in enumerate(chunks.tolist()):
        if want and not closes[place - 1] and want[-1][1::2] == [i0, j0]:
            want[-1][1::2] = [i1, j1]
        else:
            want.append([i0, i1, j0, j1])
    found = merge_chunks(chunks, closes)
    assert found.tolist() == want and found.dtype == np.int32
    np.testing.assert_array_equal(merge_chunks(chunks, np.ones(len(chunks), bool)), chunks)
    np.testing.assert_array_equal(chunks, align_bytes(*pair).chunks)  # what was given is as it was


def test_chunks_that_do_not_adjoin_on_both_sides_are_not_merged():
    chunks = [[0, 1, 0, 2], [1, 2, 2, 3], [3, 4, 3, 4], [4, 5, 5, 6]]
    assert merge_chunks(chunks, [False] * 4).tolist() == [[0, 2, 0, 3], [3, 4, 3, 4], [4, 5, 5, 6]]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: align_bytes([[0, 2], [1, 3]], offsets(3)), r"teacher_offsets must be in order and not overlap, .*got \[1, 3\] at 1"),
        (lambda: align_bytes(offsets(3), [[0, 3], [3, 2]]), r"student_offsets must be .*got \[3, 2\] at 1"),
        (lambda: align_bytes([[-1, 3]], offsets(3)), r"got \[-1, 3\] at 0"),
        (lambda: align_bytes([0, 3], offsets(3)), r"teacher_offsets must have shape \(tokens, 2\), got \(2,\)"),
        (lambda: chunk_weights([[0, 1, 0, 1], [0, 2, 1, 2]]), r"ascending and apart.* got \[0, 2, 1, 2\] at 1, of which the teacher's part"),
        (lambda: chunk_weights([[0, 1, 1, 1]]), "of which the student's part"),
        (lambda: merge_chunks([[0, 1, 0, 1]], [True, False]), r"closes must have shape \(1,\), got \(2,\)"),
        (lambda: chunk_weights([[0, 2, 0, 1]], [True]), "teacher_mask must have an entry for each token: chunks reach to 2, got 1"),
        (lambda: chunk_weights([[0, 2, 0, 1]], None, [1.0]), "student_mask must hold True or False"),
    ],
)  # fmt: skip
def test_refuses(call, text):
    with pytest.raises(ArgumentError, match=text):
        call()
