"""Folders that another method has quantised: their weights in formats of ours, bit for bit, or in f32; a file a method."""

from __future__ import annotations

from collections.abc import Callable

from fastdistill.checkpoint.config import Section
from fastdistill.checkpoint.foreign import awq, bitsandbytes, compressed_tensors, fp8, gptq
from fastdistill.checkpoint.foreign.float8 import FLOATS8, Float8Array
from fastdistill.checkpoint.foreign.foreign import Foreign, unsupported
from fastdistill.checkpoint.safetensors_file import Stored
from fastdistill.messages import listed, short

__all__ = ["FLOATS8", "METHODS", "Float8Array", "read_foreign"]

METHODS: dict[str, Callable[[Foreign], None]] = {
    "gptq": gptq.read,
    "awq": awq.read,
    "bitsandbytes": bitsandbytes.read,
    "compressed-tensors": compressed_tensors.read,
    "fp8": fp8.read,
    "fbgemm_fp8": fp8.read,
}


def read_foreign(section: Section, arrays: dict[str, Stored]) -> Foreign:
    """The tensors that a method has stored; `arrays` loses what they are made of.

    Raises
    ------
    CheckpointError
        for what the method would not have written
    UnsupportedError
        for what is not read here, and another method
    """
    method = section.string("quant_method", default="")
    if method not in METHODS:
        unsupported(section, f"the method {short(method)} cannot be read, only fastdistill, {listed(METHODS)}")
    foreign = Foreign(section, arrays)
    METHODS[method](foreign)
    return foreign
