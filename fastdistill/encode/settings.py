"""What a folder of sentence-transformers says beside config.json: how long texts may be, how rows become a vector, prompts.

modules.json lists what follows the model: a pooling (`1_Pooling/config.json`), perhaps linears (`2_Dense/`), perhaps a
normalisation.  A folder without it is read as sentence-transformers reads one: the mean of all rows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from fastdistill.checkpoint.config import Section
from fastdistill.checkpoint.safetensors_file import read_safetensors
from fastdistill.encode.pooling import POOLINGS
from fastdistill.errors import CheckpointError, UnsupportedError
from fastdistill.files import read_json, read_json_objects
from fastdistill.messages import listed, short

MOST_MODULES = 16
_SENTENCE = (
    "bert",
    "roberta",
    "distilbert",
    "camembert",
    "albert",
    "xlm-roberta",
    "xlnet",
)  # older files have other names
_ORDER = "Transformer", "Pooling", "Dense", "Normalize"
_VECTOR = "sentence_embedding"  # what a Dense is given, where its config does not say
_OLD_NAMES = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_ACTIVATIONS = {"Identity": lambda x: x, "Tanh": np.tanh}


@dataclass(frozen=True)
class Dense:
    """A linear behind the pooling: activation(matrix x + bias).

    Attributes
    ----------
    matrix : float32 (outputs, inputs)
    bias : float32 (outputs,) or None
    activation : str
        "Identity" or "Tanh"
    """

    matrix: np.ndarray
    bias: np.ndarray | None
    activation: str


@dataclass(frozen=True)
class EncodeSettings:
    """How texts become vectors, where the caller does not say.

    Attributes
    ----------
    poolings : tuple[str, ...]
        names of POOLINGS; several are laid side by side
    normalize : bool
        vectors have length 1
    dense : tuple[Dense, ...]
        between the two
    max_tokens : int | None
        of a text, special tokens included; None: what the model has positions for
    lower_case : bool
        texts are put into lower case first
    prompts : Mapping[str, str]
        by name: what is put before a text
    default_prompt : str | None
        the name of the one that is, where the caller does not say; None: nothing is
    include_prompt : bool
        the prompt's rows are pooled too
    """

    poolings: tuple[str, ...] = ("mean",)
    normalize: bool = False
    dense: tuple[Dense, ...] = ()
    max_tokens: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    include_prompt: bool = True

    def most_tokens(self, positions: int) -> int:
        """Tokens of a text, where the model has so many positions: longer ones are cut."""
        return min(self.max_tokens or positions, positions)

    def width(self, hidden_size: int) -> int:
        """Numbers of a vector, where a row has `hidden_size`.

        Raises
        ------
        CheckpointError
            for a linear that is made for others
        """
        width = hidden_size * len(self.poolings)
        for dense in self.dense:
            outputs, inputs = dense.matrix.shape
            if inputs != width:
                raise CheckpointError(
                    f"modules.json: a Dense has in_features {inputs}, and is given vectors of {width}"
                )
            width = outputs
        return width


def read_settings(folder: Path) -> EncodeSettings:
    """The settings of a folder.

    Parameters
    ----------
    folder : Path
        of a model

    Raises
    ------
    CheckpointError
        for a file that is not what it should be
    UnsupportedError
        for a module or a pooling that is not known, or modules in another order than these are computed in
    """
    found: dict[str, Any] = {}
    paths = [folder / f"sentence_{kind}_config.json" for kind in _SENTENCE]
    sentence = _section(next(filter(os.path.lexists, paths), paths[0]))
    tokenizer = _section(folder / "tokenizer_config.json")
    found["max_tokens"] = sentence.integer("max_seq_length", minimum=1, default=None)
    if found["max_tokens"] is None:  # a file that does not limit it has a 1 with thirty zeros there
        length = tokenizer.raw.get("model_max_length")
        found["max_tokens"] = length if type(length) is int and 0 < length < 1 << 31 else None
    found["lower_case"] = sentence.boolean("do_lower_case", default=False)
    written = _section(folder / "config_sentence_transformers.json")
    prompts = written.section("prompts", default=Section({}, "")).raw
    for name, prompt in prompts.items():
        if type(prompt) is not str:
            raise CheckpointError(f"{written.source}: prompts: {short(name)} must be text, found {short(prompt)}")
    found["prompts"] = prompts
    found["default_prompt"] = written.string("default_prompt_name", default=None)
    if found["default_prompt"] not in (None, *prompts):
        written.refuse("default_prompt_name", found["default_prompt"], f"the name of a prompt: {listed(prompts)}")
    dense = []
    for kind, place in _modules(folder):
        if kind == "Pooling":
            found["poolings"], found["include_prompt"] = _pooling(place)
        elif kind == "Dense":
            dense.append(_dense(place))
        elif kind == "Normalize":
            found["normalize"] = True
    return EncodeSettings(dense=tuple(dense), **found)


def _section(path: Path) -> Section:
    """A JSON object that may be absent."""
    return Section(read_json(path) if os.path.lexists(path) else {}, str(path))


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """(class, folder) of each module behind the model."""
    path = folder / "modules.json"
    if not os.path.lexists(path):
        return []
    found = []
    for number, each in enumerate(read_json_objects(path, MOST_MODULES)):
        module = Section(each, f"{path}: {number}")
        kind, place = module.string("type").rpartition(".")[2], module.string("path", default="")
        if kind not in (*_ORDER, "Dropout"):
            raise UnsupportedError(f"{path}: {short(kind)} is not supported, only {listed(_ORDER)}")
        windows = PureWindowsPath(place)  # reads both kinds of slashes, and names of drives
        if windows.anchor or ".." in windows.parts:
            module.refuse("path", place, "a folder within the model's")
        if kind == "Transformer" and windows.parts:
            raise UnsupportedError(
                f"{path}: the model lies in {short(place)}; only one beside {path.name} is supported"
            )
        if kind in _ORDER:
            found.append((kind, folder / place))
    kinds = [kind for kind, _ in found]
    if kinds != sorted(kinds, key=_ORDER.index) or any(kinds.count(kind) > 1 for kind in ("Transformer", "Pooling")):
        raise UnsupportedError(
            f"{path}: {listed(kinds, MOST_MODULES)}: this order is not supported, only Transformer, Pooling, any number of Dense, Normalize"
        )
    return found


def _pooling(place: Path) -> tuple[tuple[str, ...], bool]:
    """The names of POOLINGS, and whether prompts take part."""
    config = _section(place / "config.json")
    named = config.raw.get("pooling_mode")
    if named is None:
        names = [name for name, key in _OLD_NAMES.items() if config.boolean(key, default=False)]
    else:
        names = [named] if type(named) is str else config.strings("pooling_mode")
    for name in names:
        if name not in POOLINGS:
            config.refuse("pooling_mode", name, f"one of {', '.join(POOLINGS)}")
    if not names:
        raise CheckpointError(f"{config.source}: names no pooling; expected one of {', '.join(_OLD_NAMES.values())}")
    ordered = tuple(name for name in POOLINGS if name in names)
    return ordered, bool(config.boolean("include_prompt", default=True))


def _dense(place: Path) -> Dense:
    config = _section(place / "config.json")
    inputs, outputs = (config.integer(key, minimum=1, maximum=1 << 16) for key in ("in_features", "out_features"))
    name = config.string("activation_function", default="torch.nn.modules.activation.Tanh").rpartition(".")[2]
    if name not in _ACTIVATIONS:
        raise UnsupportedError(
            f"{config.source}: activation_function {short(name)} is not supported, only {listed(_ACTIVATIONS)}"
        )
    for key, only in (("use_residual", False), ("module_input_name", _VECTOR), ("module_output_name", _VECTOR)):
        if (found := config.raw.get(key)) not in (None, only):
            raise UnsupportedError(f"{config.source}: {key} = {short(found)} is not supported, only {short(only)}")
    path = place / "model.safetensors"
    if not os.path.lexists(path):
        raise CheckpointError(f"{path}: there is no such file; other forms of it are not read")
    arrays = read_safetensors(path)
    shapes = {"linear.weight": (outputs, inputs)} | (
        {"linear.bias": (outputs,)} if config.boolean("bias", default=True) else {}
    )
    made = {}
    for tensor, shape in shapes.items():
        found = arrays.get(tensor)
        if found is None or found.array.shape != shape or found.dtype not in ("F32", "F16"):
            holds = {name: (each.dtype, each.array.shape) for name, each in arrays.items()}
            raise CheckpointError(f"{path}: {tensor} must be F32 or F16 {shape}, the file holds {short(holds)}")
        made[tensor] = np.asarray(found.array).astype(np.float32)
        if not np.isfinite(made[tensor]).all():
            raise CheckpointError(f"{path}: {tensor} holds a NaN or an infinity")
    return Dense(made["linear.weight"], made.get("linear.bias"), name)
