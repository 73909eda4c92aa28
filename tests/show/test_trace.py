"""Drawings of who was filled when, in characters and as pictures."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

import fastdistill as fd
from fastdistill import show
from fastdistill.decode.unmask.trace import Trace
from fastdistill.errors import ArgumentError
from fastdistill.unmask import TraceStep
from tests.decode.test_unmask import prompt, unmask

PICTURE = import_module("fastdistill.show.trace_png")


def test_a_trace_is_drawn(tmp_path):
    decoder = fd.Unmask(fd.unmask.Threshold(0.4), remask=fd.unmask.Remdm(0.5, 1, 2), trace=True, early_exit=False)
    result = unmask(decoder, prompt(4), 12)
    lines = show.trace(result.trace).splitlines()
    assert len(lines) == 1 + len(result.trace.steps)
    for line, step in zip(lines[1:], result.trace.steps, strict=True):
        assert line[6:18].count("x") == len(step.remasked)
        assert line.split("  ")[-1].split() == [str(token) for token in step.tokens]
    assert show.trace(result.trace, label=lambda token: "a").splitlines()[1].endswith("a")
    filled = result.trace.filled_at()
    assert (filled >= 0).all() and filled.max() == len(result.trace.steps) - 1


def test_a_picture_of_a_trace_shows_every_cell(tmp_path):
    image = pytest.importorskip("PIL.Image")
    decoder = fd.Unmask(fd.unmask.Threshold(0.4), remask=fd.unmask.Remdm(0.5, 1, 2), trace=True, early_exit=False)
    trace = unmask(decoder, prompt(4), 12).trace
    asked = []
    show.trace_png(trace, tmp_path / "trace.png", label=lambda token: asked.append(token) or "", title="a title")
    assert asked == trace.states()[-1].tolist()
    pixels = np.asarray(image.open(tmp_path / "trace.png")).astype(int)
    show.trace_png(trace, tmp_path / "other.png", label=lambda token: "", title="another")
    assert (pixels[:40] != np.asarray(image.open(tmp_path / "other.png"))[:40]).any()  # the title is there
    top = 76
    left = 60 + int((pixels[top + 1, 60:] != PICTURE.PAPER).any(-1).argmax())  # right of the positions' numbers
    for step, (kinds, confidence) in enumerate(trace.cells()):
        for place, (kind, share) in enumerate(zip(kinds, confidence.tolist(), strict=True)):
            want = {"masked": PICTURE.MASKED, "filled": PICTURE.FILLED, "again": PICTURE.AGAIN}.get(kind)
            want = PICTURE._shade(share) if want is None else want
            assert tuple(pixels[top + 18 * place + 1, left + 44 * step + 1]) == want, (step, place, kind)


@pytest.mark.parametrize("steps", [1, 400])
def test_long_traces_have_pictures_of_bounded_size(tmp_path, steps):
    image = pytest.importorskip("PIL.Image")
    length = 3000
    step = TraceStep(
        np.arange(2, dtype=np.int32), np.zeros(2, np.int32), np.ones(2, np.float32), np.empty(0, np.int32), length
    )
    show.trace_png(Trace(length, 1, [step] * steps), tmp_path / "trace.png")
    width, height = image.open(tmp_path / "trace.png").size
    assert width < 1700 and height < 6200


def test_pictures_that_cannot_be_made(tmp_path):
    pytest.importorskip("PIL")
    trace = Trace(1, 1, [])
    for path, text in (
        ("t.jpg", "a .png file, got 't.jpg'"),
        (tmp_path / "no" / "t.png", "no folder"),
        (3, "path must be"),
    ):
        with pytest.raises(ArgumentError, match=text):
            show.trace_png(trace, path)
    with pytest.raises(ArgumentError, match="no steps"):
        show.trace_png(trace, tmp_path / "no.png")


@pytest.mark.parametrize("arguments", [{"trace": None}, {"trace": Trace(0, 1), "label": "a"}])
def test_refuses(arguments):
    with pytest.raises(ArgumentError, match="must be"):
        show.trace(**arguments)
