"""What somebody has who has no model folder: recognised, with the command that helps."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from fastdistill.errors import CheckpointError
from fastdistill.files import RegularFile, foreign_text
from fastdistill.messages import listed, short

_PICKLES = (".bin", ".pth", ".pt", ".ckpt")
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


def what_file(path: Path) -> str:
    """What a file is that is no model's folder: "a GGUF file: ..."."""
    start, quoted = start_of(path), _shown(path)
    if text := foreign_text(start):
        return text
    if start[:4] == b"GGUF" or path.suffix == ".gguf":
        if parts := _SPLIT.search(path.name):
            return (
                f"part {int(parts[1])} of {int(parts[2])} of a GGUF file: with the others beside it, run "
                f"`fastdistill convert {quoted} FOLDER` and give the folder"
            )
        return f"a GGUF file: run `fastdistill convert {quoted} FOLDER` and give the folder"
    if path.suffix in _PICKLES:
        return f"a pickle of PyTorch's, which is not read: {_save(path.parent)}"
    if path.suffix in (".safetensors", ".json"):
        return f"one file of a model: give the folder that it lies in, {_shown(path.parent)}"
    return "a file; expected the folder of a model"


def what_folder(folder: Path) -> str:
    """What a folder holds that has no config.json or no safetensors: "; it holds ...", or nothing worth saying."""
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return ""
    if not names:
        return "; the folder is empty"
    if "snapshots" in names or any(name.startswith("models--") for name in names):
        found = sorted(folder.glob("snapshots/*/config.json")) or sorted(
            folder.glob("models--*/snapshots/*/config.json")
        )
        if found:
            return f"; it is a cache of the Hub's: give the folder {listed(_shown(path.parent) for path in found)}"
        return "; it is a cache of the Hub's, which holds no whole model"
    if gguf := [name for name in names if name.endswith(".gguf")]:
        return f"; it holds {what_file(folder / gguf[0])}"
    if "adapter_config.json" in names:
        return "; it holds an adapter, not a model: merge it into its model first (`merge_and_unload` of peft)"
    if pickles := [name for name in names if name.endswith(_PICKLES)]:
        return f"; it holds pickles of PyTorch's, which are not read ({listed(map(_shown, pickles))}): {_save(folder)}"
    if inner := [name for name in names if (folder / name / "config.json").is_file()]:
        return f"; did you mean {listed(_shown(folder / name) for name in inner)}?"
    return ""


def start_of(path: Path, size: int = 4096) -> bytes:
    """The first bytes of a regular file; of anything else none."""
    try:
        with RegularFile(path) as file:
            return file.read(min(size, file.size), 0, "its beginning").tobytes()
    except CheckpointError:
        return b""


def _save(folder: Path) -> str:
    return (
        "unpickling runs whatever program a file holds. Where you trust it, transformers writes safetensors: "
        f"AutoModelForCausalLM.from_pretrained({str(folder)!r}).save_pretrained('FOLDER')"
    )


def _shown(name: object) -> str:
    """A name as a shell takes it, in one line."""
    return shlex.quote(str(name)) if str(name).isprintable() else short(str(name), 300)
