"""Texts -> vectors, ranks and labels, by encoders."""

from __future__ import annotations

from fastdistill.encode.pooling import POOLINGS
from fastdistill.encode.settings import EncodeSettings, read_settings
from fastdistill.encode.text_encoder import Labels, Ranked, TextEncoder

__all__ = ["POOLINGS", "EncodeSettings", "Labels", "Ranked", "TextEncoder", "read_settings"]
