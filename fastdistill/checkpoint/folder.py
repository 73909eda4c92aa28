"""A model's folder on disk: config.json, safetensors files, and what belongs to the tokenizer.

A quantised tensor X is stored as the arrays X.codes, X.scale and, in q4, X.minimum; config.json says what they make:

    "quantization_config": {"quant_method": "fastdistill", "tensors": {"X": {"format": "q4", "shape": [N, K]}}}

What other methods store is read by fastdistill/checkpoint/foreign/.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

from fastdistill.arguments import check_flag, check_instance, check_mapping, check_path
from fastdistill.checkpoint.config import Config, Section, read_config
from fastdistill.checkpoint.foreign import FLOATS8, Float8Array, read_foreign
from fastdistill.checkpoint.recognise import start_of, what_folder
from fastdistill.checkpoint.safetensors_file import Stored, read_safetensors, write_safetensors
from fastdistill.checkpoint.tensor import FORMATS, Tensor, layout
from fastdistill.errors import ArgumentError, CheckpointError
from fastdistill.files import WITHIN, foreign_text, is_named, read_json, replace, work_folder
from fastdistill.messages import listed, short

INDEX = "model.safetensors.index.json"

# What a model's folder holds beside weights: config, tokenizer, chat template, licence, model card.
KEPT_SUFFIXES = {".json", ".jinja", ".txt", ".model", ".md", ".html", ""}
_FOLDERS = {each.partition("/")[0] for each in WITHIN}

# Written tensors wait in memory until a file of theirs is full.
SHARD_BYTES = 1 << 28

_FILE_PARTS = {"data": "codes", "scale": "scale", "minimum": "minimum"}
_FILE_DTYPES = {"int8": "I8", "uint8": "U8", "float16": "F16"}


class Checkpoint:
    """An open folder.

    Attributes
    ----------
    folder : Path
        where it is
    config : Config
        config.json
    generation_config : dict[str, Any]
        generation_config.json; empty without the file
    tensors : Mapping[str, Tensor]
        by name
    notes : Sequence[str]
        what became of tensors that are not held as another method has stored them, and why

    Notes
    -----
    A tensor is read from its file when it is used, and every time: what has become of the file since is a
    CheckpointError. `close` forgets the tensors; a file is closed when the last tensor that it holds is gone.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        generation_config: dict[str, Any],
        tensors: dict[str, Tensor],
        notes: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.config = config
        self.generation_config = generation_config
        self.tensors: Mapping[str, Tensor] = tensors
        self.notes = notes

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.tensors = {}


def open_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint:
    """Open a folder and check that each of its files is what it says.

    Parameters
    ----------
    folder : str | os.PathLike[str]
        where it is

    Raises
    ------
    CheckpointError
    UnsupportedError
        for a folder quantised by a method that is not read, or in a way that is not
    """
    folder = check_path("folder", folder)
    try:
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: there is no such folder")
        if not os.path.lexists(folder / "config.json"):
            raise CheckpointError(f"{folder / 'config.json'}: there is no such file{what_folder(folder)}")
        opened = folder.stat()
        config = read_config(folder / "config.json")
        path = folder / "generation_config.json"
        generation_config = read_json(path) if os.path.lexists(path) else {}
        arrays = _read_arrays(folder)
        if not os.path.samestat(opened, folder.stat()):  # else its config might be of one model, its weights of another
            raise CheckpointError(f"{folder}: was replaced while it was read: load it again")
        return Checkpoint(folder, config, generation_config, *_tensors(config, arrays))
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error}") from error


class Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


def check_tensors(
    tensors: Mapping[str, Shaped], expected: Mapping[str, tuple[int, ...]], ignored: Collection[str]
) -> None:
    """Compare a checkpoint's tensors with those that a model needs.

    Parameters
    ----------
    tensors : Mapping[str, Shaped]
        by name, each with a shape
    expected : Mapping[str, tuple[int, ...]]
        name -> shape
    ignored : Collection[str]
        name, or pattern with * and ?, of a tensor that may be there and is not needed

    Raises
    ------
    CheckpointError
        one, that lists the tensors that are missing, unexpected, misshapen or not a number that a model can compute
        with; of each kind the first ten, and how many more there are
    """
    problems: dict[str, list[str]] = {}
    for name, shape in expected.items():
        if name not in tensors:
            problems.setdefault("missing", []).append(f"{name} {_size(shape)}")
    for name, tensor in tensors.items():
        plain = short(name, 200)[1:-1]
        if name not in expected:
            if not any(fnmatchcase(name, pattern) for pattern in ignored):
                problems.setdefault("unexpected", []).append(f"{plain} {_size(tensor.shape)}")
        elif tuple(tensor.shape) != tuple(expected[name]):
            problems.setdefault("misshapen", []).append(
                f"{plain} {_size(tensor.shape)}, expected {_size(expected[name])}"
            )
        elif isinstance(tensor, Tensor) and tensor.format not in FORMATS:
            problems.setdefault("of another type", []).append(
                f"{plain} {tensor.format}, expected one of {', '.join(FORMATS)}"
            )
    if problems:
        lines = [f"{kind}: {problem}" for kind, found in problems.items() for problem in _cut(found)]
        raise CheckpointError("the tensors do not agree with the config:\n  " + "\n  ".join(lines))


def _cut(lines: list[str], most: int = 10) -> list[str]:
    return lines[:most] + ([f"{len(lines) - most} more"] if len(lines) > most else [])


def write_checkpoint(
    folder: str | os.PathLike[str],
    config: Mapping[str, Any],
    tensors: Iterable[Tensor],
    files: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a folder that `open_checkpoint` reads. It appears complete or not at all.

    Parameters
    ----------
    folder : str | os.PathLike[str]
        the folder to make
    config : Mapping[str, Any]
        what config.json says; its quantization_config is made here
    tensors : Iterable[Tensor]
        drawn one at a time; SHARD_BYTES of them are in memory at once
    files : Mapping[str, bytes], optional
        what else the folder holds, by name; in folders within it further chat templates, additional_chat_templates/NAME.jinja,
        and modules of sentence-transformers, 1_Pooling/config.json
    overwrite : bool, default False
        replace the checkpoint that is there

    Raises
    ------
    CheckpointError
        where the folder is there already or cannot be written
    """
    folder = Path(os.path.realpath(check_path("folder", folder)))
    check_mapping("config", config, "keys of config.json to values")
    try:
        tensors = iter(tensors)
    except TypeError:
        raise ArgumentError(f"tensors must be an iterable of Tensor, got {short(tensors)}") from None
    files = {} if files is None else check_mapping("files", files, "names to bytes")
    for name, data in files.items():
        plain = name if isinstance(name, str) else ""
        place, _, within = plain.partition("/")
        if is_named(place, _FOLDERS):
            plain = within
        if not plain or plain in (".", "..") or set(plain) & set("/\0") or not isinstance(data, bytes):
            raise ArgumentError(
                f"files must map plain names, or such as {listed(WITHIN)}, to bytes; got {short({name: data})}"
            )
    check_flag("overwrite", overwrite)
    if folder.exists() and not overwrite:
        raise CheckpointError(
            f"{folder}: is there already; choose another name, or overwrite it (overwrite=True, --overwrite)"
        )
    if folder.exists():
        _check_replaceable(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with work_folder(folder) as work:
            made = work / "model"
            made.mkdir()
            formats = _write_arrays(made, tensors)
            config = {name: value for name, value in config.items() if name != "quantization_config"}
            if formats:
                config["quantization_config"] = {"quant_method": "fastdistill", "tensors": formats}
            _write_json(made / "config.json", config)
            for name, data in files.items():
                (made / name).parent.mkdir(exist_ok=True)
                (made / name).write_bytes(data)
            replace(folder, made, work)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written: {error}") from error


# --- reading ----------------------------------------------------------------------------------------------------------


def _read_arrays(folder: Path) -> dict[str, Stored]:
    """Every array of the folder, from the one file or from those that the index names."""
    if not (folder / "model.safetensors").exists() and (folder / INDEX).exists():
        return _read_shards(folder)
    paths = sorted(folder.glob("*.safetensors"))
    if len(paths) > 1 and folder / "model.safetensors" in paths:
        paths = [folder / "model.safetensors"]
    if len(paths) != 1:
        raise CheckpointError(
            f"{folder}: has {len(paths)} safetensors files and no {INDEX}; expected model.safetensors, or an index"
            + ("" if paths else what_folder(folder))
        )
    return _read_file(paths[0])


def _read_file(path: Path) -> dict[str, Stored]:
    if text := foreign_text(start_of(path)):
        raise CheckpointError(f"{path}: is {text}")
    return read_safetensors(path)


def _read_shards(folder: Path) -> dict[str, Stored]:
    path = folder / INDEX
    places = Section(read_json(path), str(path)).section("weight_map").raw
    for name, file in places.items():
        # A plain name: nothing outside the folder, nothing that the file system cannot spell.
        if (
            type(file) is not str
            or not file.endswith(".safetensors")
            or set(file) & set("/\\")
            or not file.isprintable()
        ):
            raise CheckpointError(f"{path}: {short(name)} must lie in a *.safetensors beside it, found {short(file)}")
    arrays: dict[str, Stored] = {}
    for file in sorted(set(places.values())):
        for name, stored in _read_file(folder / file).items():
            if places.get(name) != file:
                raise CheckpointError(
                    f"{folder / file}: holds the tensor {short(name)}, which {INDEX} "
                    + (f"places in {places[name]}" if name in places else "does not name")
                )
            arrays[name] = stored
    for name, file in places.items():
        if name not in arrays:
            raise CheckpointError(f"{folder / file}: does not hold the tensor {short(name)} that {INDEX} places there")
    return arrays


def _tensors(config: Config, arrays: dict[str, Stored]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors by name, and notes. What config.json calls quantised is put together from its arrays, which `arrays` loses."""
    tensors, notes = dict[str, Tensor](), list[str]()
    quantization = config.section("quantization_config", default=None)
    if quantization is not None:
        if quantization.raw.get("quant_method") == "fastdistill":
            described = quantization.section("tensors")
            tensors = {name: _quantised(name, described.section(name), arrays) for name in described.raw}
        else:
            foreign = read_foreign(quantization, arrays)
            tensors, notes = foreign.tensors, foreign.notes
    for name, stored in arrays.items():
        if name in tensors:
            raise CheckpointError(
                f"{config.source}: {short(name)} is called quantised, but is there as {stored.dtype} too"
            )
        is_float8 = stored.dtype in FLOATS8
        format, array = ("f16", Float8Array(stored)) if is_float8 else (stored.dtype.lower(), stored.array)
        tensors[name] = Tensor(name, format, array.shape, array)
    return tensors, notes


def _quantised(name: str, described: Section, arrays: dict[str, Stored]) -> Tensor:
    format, shape = described.choice("format", "q8", "q4"), tuple(described.integers("shape"))
    if len(shape) != 2:
        raise CheckpointError(f"{described.source}: shape must be two integers, found {len(shape)}")
    parts = {}
    for part, (dtype, size) in layout(format, shape).items():
        found = arrays.pop(f"{name}.{_FILE_PARTS[part]}", None)
        if found is None or (found.dtype, found.array.shape) != (_FILE_DTYPES[dtype], size):
            raise CheckpointError(
                f"{described.source}: {format} {_size(shape)} needs {name}.{_FILE_PARTS[part]} as "
                f"{_FILE_DTYPES[dtype]} {_size(size)}, found "
                + ("nothing" if found is None else f"{found.dtype} {_size(found.array.shape)}")
            )
        parts[part] = found.array
    return Tensor(name, format, shape, **parts)


def _size(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


# --- writing ----------------------------------------------------------------------------------------------------------


def _write_arrays(folder: Path, tensors: Iterable[Tensor]) -> dict[str, dict[str, Any]]:
    """Write the safetensors files and the index; returns what config.json is to say of the quantised tensors."""
    formats: dict[str, dict[str, Any]] = {}
    places: dict[str, int] = {}
    shard: dict[str, Stored] = {}
    shards, total = 0, 0

    def flush() -> None:
        nonlocal shards, total
        write_safetensors(folder / f"{shards}.safetensors", shard)
        total += sum(array.nbytes for _, array in shard.values())
        places.update(dict.fromkeys(shard, shards))
        shard.clear()
        shards += 1

    for tensor in tensors:
        check_instance("each of tensors", tensor, Tensor)
        arrays = _arrays(tensor)
        if twice := [name for name in arrays if name in places or name in shard]:
            raise CheckpointError(f"{folder}: {twice[0]} is to be written twice")
        if shard and sum(array.nbytes for _, array in shard.values()) + tensor.nbytes > SHARD_BYTES:
            flush()
        shard.update(arrays)
        if tensor.format in ("q8", "q4"):
            formats[tensor.name] = {"format": tensor.format, "shape": list(tensor.shape)}
    flush()
    if shards == 1:
        (folder / "0.safetensors").replace(folder / "model.safetensors")
        return formats
    names = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    for i, name in enumerate(names):
        (folder / f"{i}.safetensors").replace(folder / name)
    # transformers reads no index without metadata
    weight_map = {name: names[i] for name, i in sorted(places.items())}
    _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    return formats


def _arrays(tensor: Tensor) -> dict[str, Stored]:
    if tensor.format not in ("q8", "q4"):
        return {tensor.name: Stored(tensor.format.upper(), tensor.stored["data"])}
    return {
        f"{tensor.name}.{_FILE_PARTS[part]}": Stored(_FILE_DTYPES[array.dtype.name], array)
        for part, array in tensor.stored.items()
    }


def _write_json(path: Path, value: Any) -> None:
    try:
        data = json.dumps(value, indent=2, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name}: cannot be written as JSON: {error}") from error
    path.write_bytes(data)


def _check_replaceable(folder: Path) -> None:
    """Refuse to overwrite a folder that is no checkpoint, or that holds more than one."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: is not a checkpoint (it has no config.json), so it is not overwritten")
    known = (*KEPT_SUFFIXES, ".safetensors")
    paths = [*folder.iterdir()]
    folders = [path for path in paths if path.is_dir() and is_named(path.name, _FOLDERS)]
    others = [path for path in paths if path not in folders and not (path.is_file() and path.suffix in known)]
    others += [
        path
        for place in folders
        for path in place.iterdir()
        if not (path.is_file() and is_named(f"{place.name}/{path.name}", WITHIN))
    ]
    if others:
        name = short(str(min(others).relative_to(folder)))
        raise CheckpointError(f"{folder}: holds {name}, which is no part of a checkpoint, so it is not overwritten")
