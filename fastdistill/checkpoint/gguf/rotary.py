"""Rotary positions: a GGUF file's metadata and factors as config.json's base and scaling, and the other way round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastdistill.checkpoint.config import Config, Section
from fastdistill.checkpoint.gguf.reader import GgufFile
from fastdistill.checkpoint.gguf.record import Architecture
from fastdistill.checkpoint.gguf.tensors import read_tensor
from fastdistill.errors import CheckpointError, UnsupportedError
from fastdistill.messages import short

ROTARY_KEYS = {
    "rope.dimension_count", "rope.freq_base", "rope.freq_base_swa", "rope.scale_linear", "rope.scaling.type",
    "rope.scaling.factor", "rope.scaling.original_context_length", "rope.scaling.finetuned", "rope.scaling.attn_factor",
    "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
}  # fmt: skip
_QUOTIENTS, _LONG, _SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
_PUBLISHED = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # Llama 3's

_PARTIAL = {"gptneox": 0.25, "stablelm": 0.25}  # the part of a head that turns where config.json does not say; else all


# --- a file's ---------------------------------------------------------------------------------------------------------


def read_rotary(
    file: GgufFile, architecture: Architecture, sizes: Mapping[str, int]
) -> tuple[dict[str, Any], set[str]]:
    """The keys of config.json that say how positions rotate, and the tensors that have gone into them.

    Raises
    ------
    CheckpointError
    UnsupportedError
        for a scaling that config.json has no words for
    """
    prefix, head = architecture.name + ".rope.", sizes["head"]

    def number(key: str, default: Any = ...) -> Any:
        return file.positive(prefix + key, default)

    turning = file.size_of(prefix + "dimension_count", head)
    if turning != head and (not architecture.partial or turning % 2 or turning > head):
        raise UnsupportedError(
            f"{file.name}: a model whose key, value and rotary widths differ ({head} and {turning}) cannot be converted"
        )
    theta = number("freq_base", 10000.0)
    config: dict[str, Any] = {architecture.theta: theta}
    if architecture.partial and (turning != head or architecture.name in _PARTIAL):
        config[architecture.partial] = _share(turning, head)
    if architecture.local_theta:
        config[architecture.local_theta] = number("freq_base_swa", 10000.0)
    elif number("freq_base_swa", theta) != theta:
        raise UnsupportedError(f"{file.name}: metadata {prefix}freq_base_swa cannot be converted")

    scaled = any(prefix + key in file.metadata for key in ("scale_linear", "scaling.factor"))
    kind = file.get(prefix + "scaling.type", str, "linear" if scaled else "none")
    used = {name for name in (_QUOTIENTS, _LONG, _SHORT) if name in file.tensors}
    original = file.size_of(prefix + "scaling.original_context_length", None)
    long = _LONG in used or _SHORT in used or kind == "longrope"
    for key in ("attn_factor", "yarn_attn_factor", "yarn_ext_factor"):  # llama.cpp uses them whatever the kind
        said = kind == "yarn" if key.startswith("yarn") else long
        if not said and number("scaling." + key, 1.0) != 1.0:
            raise UnsupportedError(f"{file.name}: metadata {prefix}scaling.{key} cannot be converted")
    if architecture.name == "granite" and not file.get(prefix + "scaling.finetuned", bool, True):
        raise UnsupportedError(
            f"{file.name}: metadata {prefix}scaling.finetuned: without rotary positions it cannot be converted"
        )
    if long:
        if kind not in ("none", "longrope") or _QUOTIENTS in used:
            raise UnsupportedError(f"{file.name}: rope_factors_long.weight beside rope scaling {short(kind)}")
        config |= _longrope(file, architecture, sizes["positions"], turning, original)
    elif _QUOTIENTS in used:
        if kind != "none":
            raise UnsupportedError(f"{file.name}: rope_freqs.weight beside rope scaling {short(kind)}")
        config["rope_scaling"] = _llama3(file, theta, turning)
    elif kind == "linear":
        factor = number("scaling.factor", number("scale_linear", 1.0))
        config["rope_scaling"] = {"rope_type": "linear", "factor": factor}
    elif kind == "yarn":
        config["rope_scaling"] = _yarn(file, prefix + "scaling.", original)
    elif kind != "none":
        raise UnsupportedError(f"{file.name}: rope scaling {short(kind)} cannot be converted")
    elif original is not None and architecture.name == "phi3":
        config["original_max_position_embeddings"] = original
    return config, used


def _share(turning: int, head: int) -> float:
    """The part of a head that turns, such that `int(head * part)` is what turns."""
    part = turning / head
    return part if int(head * part) == turning else math.nextafter(part, 1.0)


def _yarn(file: GgufFile, prefix: str, original: int | None) -> dict[str, Any]:
    if original is None:
        raise CheckpointError(f"{file.name}: metadata {prefix}original_context_length is missing")
    if file.positive(prefix + "yarn_ext_factor", 1.0) != 1.0:
        raise UnsupportedError(f"{file.name}: metadata {prefix}yarn_ext_factor cannot be converted")
    scaling: dict[str, Any] = {"rope_type": "yarn", "factor": file.positive(prefix + "factor")}
    scaling["original_max_position_embeddings"] = original
    names = {"yarn_attn_factor": "attention_factor", "yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}
    found = {name: file.positive(prefix + key, None) for key, name in names.items()}
    return scaling | {name: value for name, value in found.items() if value is not None}


def _longrope(
    file: GgufFile, architecture: Architecture, positions: int, turning: int, original: int | None
) -> dict[str, Any]:
    """Phi-3's: a factor a frequency, of texts that are longer than the original context and of those that are not."""
    if architecture.name != "phi3":
        raise UnsupportedError(f"{file.name}: rope_factors_long.weight in {architecture.name} cannot be converted")
    factors = {}
    for key, name in (("short_factor", _SHORT), ("long_factor", _LONG)):
        if name not in file.tensors or file.tensors[name].shape != (turning // 2,) or original is None:
            raise CheckpointError(
                f"{file.name}: longrope needs rope.scaling.original_context_length, rope_factors_short.weight and "
                f"rope_factors_long.weight, each of {turning // 2} factors"
            )
        values = read_tensor(file, file.tensors[name], name).to_float32()
        if not (np.isfinite(values) & (values > 0)).all():
            raise CheckpointError(f"{file.name}: {name} holds {values.min():g}; expected positive numbers")
        factors[key] = [float(str(value)) for value in values]
    scaling: dict[str, Any] = {"type": "longrope", **factors}
    usual = _longrope_scale(positions, original or positions)
    scale = file.positive(architecture.name + ".rope.scaling.attn_factor", usual)
    if not math.isclose(scale, usual, rel_tol=1e-5):
        scaling["attention_factor"] = scale
    return {"rope_scaling": scaling, "original_max_position_embeddings": original}


def _longrope_scale(positions: int, original: int) -> float:
    scale = positions / original
    return math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0


def _quotients(theta: float, turning: int, factor: float, low: float, high: float, original: int) -> np.ndarray:
    """By what Llama 3's rule divides each frequency, float64 (turning / 2,).

    Wavelengths below original / high are left alone, those above original / low divided by `factor`; between the two it
    interpolates.
    """
    wavelength = 2 * np.pi * theta ** (np.arange(0, turning, 2) / turning)
    smooth = np.clip((original / wavelength - low) / (high - low), 0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


def _llama3(file: GgufFile, theta: float, turning: int) -> dict[str, Any]:
    """The parameters behind `rope_freqs.weight`, by which llama.cpp divides each rotary frequency.

    The file has only the quotients, so the published parameters are tried, and must give every one of them back to
    float32's precision.
    """
    found = read_tensor(file, file.tensors[_QUOTIENTS], _QUOTIENTS).to_float32().astype(np.float64)
    factor = float(found.max(initial=1.0))
    expected = np.zeros(0)
    if np.isfinite(factor) and factor >= 1:
        expected = _quotients(theta, turning, factor, *_PUBLISHED.values())  # type: ignore[arg-type]
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-5, atol=0):
        raise UnsupportedError(f"{file.name}: rope_freqs.weight is not of the form that Llama 3's scaling gives")
    return {"rope_type": "llama3", "factor": factor, **_PUBLISHED}


# --- a folder's -------------------------------------------------------------------------------------------------------


def write_rotary(
    config: Config, architecture: Architecture, sizes: Mapping[str, int]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The metadata, and the tensors float32, that say what config.json does of rotary positions.

    Raises
    ------
    CheckpointError
    UnsupportedError
        for a scaling that llama.cpp computes otherwise, or not at all
    """
    rope = config.section("rope_parameters")
    local = rope.section("sliding_attention", default=None)
    rope = rope.section("full_attention", default=rope)
    turning = sizes["head"]
    values: dict[str, Any] = {}
    if architecture.partial:
        usual = _PARTIAL.get(architecture.name, 1.0)
        part = rope.number("partial_rotary_factor", minimum=0, maximum=1, default=None)
        if part is None:
            part = config.number(architecture.partial, minimum=0, maximum=1, default=usual)
        turning = int(turning * part)
    elif rope.number("partial_rotary_factor", default=1.0) != 1.0:
        raise UnsupportedError(
            f"{rope.source}: partial_rotary_factor is not 1; llama.cpp's {architecture.name} has 1, always"
        )
    values["rope.dimension_count"] = turning
    theta = rope.number("rope_theta", minimum=1, maximum=1e30, default=None)
    theta = config.number(architecture.theta, minimum=1, maximum=1e30, default=10000.0) if theta is None else theta
    values["rope.freq_base"] = theta
    if architecture.local_theta:
        inner = None if local is None else local.number("rope_theta", minimum=1, maximum=1e30, default=None)
        values["rope.freq_base_swa"] = inner or config.number(architecture.local_theta, minimum=1, default=10000.0)
        if local is not None and local.string("rope_type", default="default") != "default":
            raise UnsupportedError(f"{local.source}: llama.cpp scales no positions of layers with a window")
    scaling, tensors = _scaling(config, rope, architecture, sizes["positions"], theta, turning)
    return values | scaling, tensors


def _scaling(
    config: Config, rope: Section, architecture: Architecture, positions: int, theta: float, turning: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    kind = rope.string("rope_type", default="default")
    values: dict[str, Any] = {}
    if kind == "default":
        if architecture.name == "phi3":
            values["rope.scaling.original_context_length"] = _original(config, rope, positions)
        return values, {}
    values["rope.scaling.type"] = kind
    if kind == "linear":
        values["rope.scaling.factor"] = rope.number("factor", minimum=1, maximum=1e6)
        return values, {}
    if kind == "llama3":
        found = {name: rope.number(name, minimum=1e-3, maximum=1e9) for name in _PUBLISHED}
        factor = rope.number("factor", minimum=1, maximum=1e6)
        quotients = _quotients(theta, turning, factor, *found.values())  # type: ignore[arg-type]
        return {}, {_QUOTIENTS: quotients.astype(np.float32)}
    if kind == "yarn":
        factor = rope.number("factor", minimum=1, maximum=1e6)
        usual, scale = 0.1 * math.log(factor) + 1, rope.number("attention_factor", default=None)
        others = [key for key in ("mscale", "mscale_all_dim") if rope.number(key, default=None) is not None]
        if (
            others
            or not rope.boolean("truncate", default=True)
            or not math.isclose(scale or usual, usual, rel_tol=1e-6)
        ):
            raise UnsupportedError(
                f"{rope.source}: llama.cpp scales yarn's scores by 0.1 ln factor + 1, and knows no mscale and no truncate"
            )
        for key in ("beta_fast", "beta_slow"):
            if (beta := rope.number(key, minimum=1e-3, maximum=1e6, default=None)) is not None:
                values[f"rope.scaling.yarn_{key}"] = beta
        values["rope.scaling.factor"] = factor
        values["rope.scaling.original_context_length"] = _original(config, rope, None)
        return values, {}
    if kind in ("longrope", "su") and architecture.name == "phi3":
        original = _original(config, rope, None)
        scale = rope.number("attention_factor", minimum=1e-3, maximum=1e3, default=_longrope_scale(positions, original))
        tensors = {}
        for key, name in (("short_factor", _SHORT), ("long_factor", _LONG)):
            factors = rope.raw.get(key)
            if (
                type(factors) is not list
                or len(factors) != turning // 2
                or not all(type(factor) in (int, float) for factor in factors)
            ):
                rope.refuse(key, factors, f"a list of {turning // 2} numbers")
            tensors[name] = np.array(factors, np.float32)
        values = {"rope.scaling.attn_factor": scale, "rope.scaling.original_context_length": original}
        return values, tensors
    raise UnsupportedError(f"{rope.source}: rope_type {short(kind)} cannot be written as GGUF of {architecture.name}")


def _original(config: Config, rope: Section, default: int | None) -> int:
    name = "original_max_position_embeddings"
    if rope.raw.get(name) is not None:
        return rope.integer(name, minimum=1)
    return config.integer(name, minimum=1, default=... if default is None else default)
