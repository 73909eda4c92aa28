"""Layouts of packed weights: levels of one share them, others refuse them, and the session goes on where it was."""

from __future__ import annotations

import numpy as np
import pytest

from fastdistill.errors import IsaError
from fastdistill.kernels import isa_levels
from fastdistill.kernels.isa import LAYOUTS, isa_layout
from fastdistill.models import plan_for
from fastdistill.runtime import packing
from fastdistill.runtime.network import Network
from tests.small_models import FORMATS, config, network, tensors
from tests.strategies import LOGITS, bits, level

TEXT = [1, 5, 2, 5]


def logits(session, text=TEXT):
    return bits(session.forward(text, read=LOGITS).logits)


@pytest.mark.parametrize("format", FORMATS)
def test_a_session_runs_at_each_level_that_reads_its_weights(isa, format):
    held, want = isa_layout(), logits(network("plain", format).session())
    session = network("plain", format).session()
    for other in isa_levels():
        with level(other):
            if isa_layout() == held or format not in packing.QUANTISED:
                np.testing.assert_array_equal(logits(session), want)
            else:
                with pytest.raises(
                    IsaError, match=f"'{other}' reads weights packed as {isa_layout()}, and these.* {held}"
                ):
                    logits(session)
        session.truncate(0)
    np.testing.assert_array_equal(logits(session), want)


@pytest.mark.parametrize("format", packing.QUANTISED)
def test_weights_packed_for_no_level_of_this_machine_are_refused(isa, format, monkeypatch):
    other = next(layout for layout in LAYOUTS if layout != isa_layout())
    plan = plan_for(config("plain"))
    monkeypatch.setattr(packing, "isa_layout", lambda: other)
    session = Network(plan, tensors(plan, format=format)).session()
    with pytest.raises(IsaError, match=f"these are packed as {other}: load or pack them again, or select"):
        session.forward(TEXT)
    assert session.length == 0
