"""JSON that somebody else wrote: read strictly, asked for by name and type."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

from fastdistill.arguments import check_path
from fastdistill.errors import CheckpointError
from fastdistill.files import read_json
from fastdistill.messages import short


class Section:
    """A JSON object with typed access.

    null is the same as absent: the default, or an error where there is none. Every accessor raises CheckpointError
    that names the source, the key, what was found and what was expected.

    Attributes
    ----------
    raw : Mapping[str, Any]
        the object as it was read
    source : str
        what errors call it
    """

    def __init__(self, raw: Mapping[str, Any], source: str) -> None:
        self.raw = raw
        self.source = source
        self._values = raw
        self._spelling: Mapping[str, str] = {}

    def integer(self, name: str, *, minimum: int = 0, maximum: int = 2**31 - 1, default: Any = ...) -> Any:
        """An integer in minimum..maximum. A float or a boolean is not one."""
        return self._get(
            name,
            default,
            lambda value: type(value) is int and minimum <= value <= maximum,
            f"an integer from {minimum} to {maximum}",
        )

    def integers(self, name: str, *, minimum: int = 0, maximum: int = 2**31 - 1, default: Any = ...) -> Any:
        """A list of integers in minimum..maximum."""
        return self._get(
            name,
            default,
            lambda value: type(value) is list and all(type(i) is int and minimum <= i <= maximum for i in value),
            f"a list of integers from {minimum} to {maximum}",
        )

    def number(self, name: str, *, minimum: float = -math.inf, maximum: float = math.inf, default: Any = ...) -> Any:
        """A finite number in minimum..maximum, as float."""
        largest = sys.float_info.max  # an integer of JSON may lie beyond
        value = self._get(
            name,
            default,
            lambda value: type(value) in (int, float) and minimum <= value <= maximum and abs(value) <= largest,
            f"a finite number from {minimum:g} to {maximum:g}",
        )
        return float(value) if type(value) is int else value

    def numbers(self, name: str, count: int, *, minimum: float = -math.inf, maximum: float = math.inf) -> list[float]:
        """A list of so many numbers in minimum..maximum."""
        return [
            float(value)
            for value in self._get(
                name,
                ...,
                lambda value: (
                    type(value) is list
                    and len(value) == count
                    and all(type(each) in (int, float) and minimum <= each <= maximum for each in value)
                ),
                f"a list of {count} numbers from {minimum:g} to {maximum:g}",
            )
        ]

    def boolean(self, name: str, *, default: Any = ...) -> Any:
        return self._get(name, default, lambda value: type(value) is bool, "true or false")

    def booleans(self, name: str, count: int, *, default: Any = ...) -> Any:
        """A list of so many true or false, or 1 or 0."""
        return self._get(
            name,
            default,
            lambda value: type(value) is list and len(value) == count and all(each in (0, 1) for each in value),
            f"a list of {count} of 1 and 0",
        )

    def strings(self, name: str, count: int | None = None, *, default: Any = ...) -> Any:
        """A list of so many strings; None: of any number."""
        return self._get(
            name,
            default,
            lambda value: (
                type(value) is list and count in (None, len(value)) and all(type(each) is str for each in value)
            ),
            "a list of strings" if count is None else f"a list of {count} strings",
        )

    def string(self, name: str, *, default: Any = ...) -> Any:
        return self._get(name, default, lambda value: type(value) is str, "a string")

    def choice(self, name: str, *allowed: str, default: Any = ...) -> Any:
        """One of the strings allowed."""
        return self._get(
            name,
            default,
            lambda value: type(value) is str and value in allowed,
            "one of " + ", ".join(map(repr, allowed)),
        )

    def section(self, name: str, *, default: Any = ...) -> Any:
        """An object, as a Section."""
        value = self._get(name, default, lambda value: type(value) is dict, "an object")
        return value if value is default else Section(value, f"{self.source}: {name}")

    def has(self, name: str) -> bool:
        """Whether there is such a key, be it null."""
        return self.spelt(name) in self._values

    def spelt(self, name: str) -> str:
        """What the file calls a key: see `Config.respelt`."""
        return self._spelling.get(name, name)

    def refuse(self, name: str, found: object, expected: str) -> NoReturn:
        """Raise the CheckpointError of a value that is not what was expected."""
        raise CheckpointError(f"{self.source}: {self.spelt(name)} must be {expected}, found {short(found)}")

    def _get(self, name: str, default: Any, valid: Callable[[Any], bool], expected: str) -> Any:
        value = self._values.get(self.spelt(name))
        if value is None:
            if default is not ...:
                return default
            raise CheckpointError(f"{self.source}: {self.spelt(name)} is missing; expected {expected}")
        if not valid(value):
            self.refuse(name, value, expected)
        return value


class Config(Section):
    """A model's config.json. Whichever way it spells these, they read as newer Hugging Face files spell them:

    - dtype: also for torch_dtype
    - rope_parameters: {"rope_type": "default" | "linear" | "llama3" | ..., "rope_theta": ..., ...}, from rope_theta,
      partial_rotary_factor and rope_scaling too; always there
    """

    def __init__(self, raw: Mapping[str, Any], source: str = "config.json") -> None:
        super().__init__(raw, source)
        values = {name: value for name, value in raw.items() if value is not None}
        if "torch_dtype" in values:
            values.setdefault("dtype", values.pop("torch_dtype"))
        rope: dict[str, Any] = {
            name: values.pop(name) for name in ("rope_theta", "partial_rotary_factor") if name in values
        }
        for key in ("rope_scaling", "rope_parameters"):
            for name, value in self.section(key, default=Section({}, "")).raw.items():
                name = "rope_type" if name == "type" else name
                if rope.setdefault(name, value) != value:
                    raise CheckpointError(f"{source}: {name} is {short(rope[name])}, and {short(value)} in {key}")
        values.pop("rope_scaling", None)
        self._values = values | {"rope_parameters": {"rope_type": "default"} | rope}

    def narrowed(self, defaults: Mapping[str, Any], null_is_a_value: Collection[str] = ()) -> Config:
        """This config as a class sees it that knows the keys of `defaults` and rope_parameters, and no others.

        An absent key has its default; so has one that is null, unless the class takes null for a value.
        """
        config = Config(self.raw, self.source)
        absent = {
            name: value for name, value in defaults.items() if name not in self.raw or name not in null_is_a_value
        }
        known = {name: value for name, value in self._values.items() if name in defaults or name == "rope_parameters"}
        config._values = absent | known
        return config

    def respelt(self, **spelling: str) -> Config:
        """This config, where keys asked for by these names are called otherwise in the file."""
        config = Config(self.raw, self.source)
        config._values, config._spelling = self._values, spelling
        return config

    def changed(self, changes: Mapping[str, Any]) -> Config:
        """This config, were the file to say something else."""
        return Config(dict(self.raw) | dict(changes), self.source)


def read_config(path: Path) -> Config:
    """The Config of a file.

    Parameters
    ----------
    path : Path
        of the file

    Raises
    ------
    CheckpointError
    """
    path = check_path("path", path)
    return Config(read_json(path), str(path))


def said_of_texts(config: Config, generation_config: Mapping[str, Any]) -> Section:
    """What a folder says of how texts are written: generation_config.json, or where that is empty config.json."""
    if generation_config:
        return Section(generation_config, "generation_config.json")
    return Section(config.raw, config.source)


def eos_token_ids(config: Config, generation_config: Mapping[str, Any]) -> frozenset[int]:
    """The tokens that end a text by either file: each names one, several or none.

    Parameters
    ----------
    config : Config
        config.json
    generation_config : Mapping[str, Any]
        generation_config.json

    Raises
    ------
    CheckpointError
    """
    ids: set[int] = set()
    for source in (config, Section(generation_config, "generation_config.json")):
        if type(source.raw.get("eos_token_id")) is list:
            ids.update(source.integers("eos_token_id"))
        else:
            ids.add(source.integer("eos_token_id", default=None))
    return frozenset(ids - {None})
