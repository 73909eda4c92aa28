"""Fixtures that every test shares: each instruction set in turn, and a reproducible hypothesis."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from fastdistill.kernels import isa as selected_isa
from fastdistill.kernels import isa_levels, set_isa

settings.register_profile("default", deadline=None, derandomize=True, max_examples=60, suppress_health_check=list(HealthCheck))
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(params=isa_levels())
def isa(request):
    """Each level of this machine, forced."""
    before = selected_isa()
    set_isa(request.param)
    yield request.param
    set_isa(before)
