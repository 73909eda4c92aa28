"""Changes of one input that know its format: what is around the change stays whole, so that code behind the first checks is reached."""

from __future__ import annotations

import json
import math
import struct
from copy import deepcopy
from random import Random
from typing import Any

ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 8, 31, 32, 64, 127, 255, 65536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63),
    10**30, 10**400, 0.0, -0.0, 0.5, -0.5, 1.0, 1e-30, 1e-320, 1e30, 1e308, "", "x", "0", "model", "\u0000", "é", "\ud800", "x" * 300, [], {},
    [1], [[]], {"": None}, {"type": "x"}, [0.5] * 9,
]  # fmt: skip
DTYPES = [
    "F64",
    "F32",
    "F16",
    "BF16",
    "F8_E4M3",
    "F8_E5M2",
    "C64",
    "I64",
    "I32",
    "I16",
    "I8",
    "U64",
    "U32",
    "U16",
    "U8",
    "BOOL",
    "F4",
]
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "C64": 8, "I64": 8, "I32": 4, "I16": 2, "U64": 8, "U32": 4, "U16": 2}


# ---- bytes ----


def bytes_changed(data: bytes, random: Random) -> bytes:
    """A byte, a bit, a piece of it, as fuzzers change what they know nothing of."""
    at, size = random.randrange(len(data) + 1), random.randrange(1, 9)
    new = random.choice([random.randbytes(size), b"\0" * size, b"\xff" * size, data[at : at + size] * 2])
    return random.choice(
        [data[:at] + new + data[at + size :], data[:at] + new + data[at:], data[:at] + data[at + size :], data[:at]]
    )


# ---- JSON ----


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container within a value and every key or index of it."""
    found, waiting = [], [value] if isinstance(value, (dict, list)) else []
    while waiting and len(found) < 5000:
        container = waiting.pop()
        inside = list(container.items() if isinstance(container, dict) else enumerate(container))
        found += [(container, key) for key, _ in inside]
        waiting += [item for _, item in inside if isinstance(item, (dict, list))]
    return found


def value_changed(value: Any, random: Random, donors: list[Any] = ODD) -> Any:
    """Another value in some place of it, a place more or less, or another key. The value itself is changed."""
    places = _places(value)
    if not places:
        return deepcopy(random.choice([*donors, {"x": 1}]))
    container, key = random.choice(places)
    donor, kept = random.choice(places)
    new = deepcopy(
        random.choice([random.choice(donors), random.choice(ODD), _near(container[key], random), donor[kept]])
    )
    match random.randrange(6):
        case 0:
            del container[key]
        case 1 if isinstance(container, dict):
            container[str(random.choice([random.choice(places)[1], "x", ""]))] = new
        case 1:
            container.insert(key, new)
        case 2 if isinstance(container, dict):
            container[str(random.choice(places)[1])] = container.pop(key)
        case _:
            container[key] = new
    return value


def _near(value: Any, random: Random) -> Any:
    """A value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice([value + 1, value - 1, value * 2, value // 2, -value, float(value % 10**9)])
    if isinstance(value, float):
        return random.choice([value * 2, -value, value + 1, int(value) if math.isfinite(value) else 0])
    if isinstance(value, str):
        at = random.randrange(len(value) + 1)
        return random.choice(
            [value[:at], value[at:], value * 2, value[:at] + random.choice("\0 .*+?()[]{}|\\^$é▁<%-_0") + value[at:]]
        )
    if isinstance(value, list):
        return value * 2
    return {"": value}


def json_changed(data: bytes, random: Random, donors: list[Any] = ODD) -> bytes:
    """A JSON file with a few places changed; bytes changed, where it is none."""
    try:
        value = json.loads(data)
        for _ in range(random.randrange(1, 4)):
            value = value_changed(value, random, donors)
        return json.dumps(value, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return bytes_changed(data, random)


# ---- safetensors ----


def safetensors_parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the bytes behind it.

    Raises
    ------
    ValueError
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("no object")
    return header, data[8 + length :]


def safetensors_made(header: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def safetensors_changed(data: bytes, random: Random, donors: list[Any] = ODD) -> bytes:
    """Its header or its bytes changed; half of the time, offsets and size are then set right."""
    try:
        header, body = safetensors_parts(data)
        if random.random() < 0.7:
            new = value_changed(header, random, [*donors, *DTYPES])
            header = new if isinstance(new, dict) else {}
        else:
            body = bytes_changed(body, random)
        if random.random() < 0.5:
            body = _placed(header, body)
        return safetensors_made(header, body)
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError, AttributeError):
        return bytes_changed(data, random)


def _placed(header: dict[str, Any], body: bytes) -> bytes:
    """Offsets as dtypes and shapes say, and so many bytes."""
    at, most = 0, 1 << 16
    for name, entry in header.items():
        if name == "__metadata__" or not all(type(size) is int and 0 <= size <= most for size in entry["shape"]):
            continue
        size = SIZES.get(entry["dtype"], 1) * math.prod(entry["shape"])
        entry["data_offsets"] = [at, at := at + size]
    if at > most:
        return body
    return (body * (1 + at // max(1, len(body))) + bytes(at))[:at]


# ---- GGUF ----

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_NUMBERS = [0, 1, 2, 3, 7, 32, 64, 255, 256, 2**16, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1]


class Gguf:
    """What a file says, each entry to be changed: metadata [key, kind, bytes], tensors [name, sizes, kind, offset], and the rest."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 8
        tensors, pairs = self._take("<QQ")
        self.metadata = [[self._text(), *self._value()] for _ in range(min(pairs, 500))]
        self.tensors = [self._tensor() for _ in range(min(tensors, 500))]
        self.body = data[-(-self._at // 32) * 32 :]

    def _take(self, code: str) -> tuple[Any, ...]:
        found = struct.unpack_from(code, self._data, self._at)
        self._at += struct.calcsize(code)
        return found

    def _bytes(self, size: int) -> bytes:
        if size > len(self._data):
            raise ValueError("cut short")
        self._at += size
        return self._data[self._at - size : self._at]

    def _text(self) -> bytes:
        return self._bytes(*self._take("<Q"))

    def _value(self) -> tuple[int, bytes]:
        (kind,) = self._take("<I")
        start = self._at
        if kind == _STRING:
            self._text()
        elif kind == _ARRAY:
            item, count = self._take("<IQ")
            if item == _STRING:
                for _ in range(count):
                    self._text()
            else:
                self._bytes(count * struct.calcsize(_SCALARS[item]))
        else:
            self._bytes(struct.calcsize(_SCALARS[kind]))
        return kind, self._data[start : self._at]

    def _tensor(self) -> list[Any]:
        name, (rank,) = self._text(), self._take("<I")
        sizes = list(self._take(f"<{min(rank, 9)}Q"))
        return [name, sizes, *self._take("<IQ")]

    def made(self) -> bytes:
        parts = [b"GGUF", struct.pack("<IQQ", 3, len(self.tensors), len(self.metadata))]
        for key, kind, value in self.metadata:
            parts += [_counted(key), struct.pack("<I", kind), value]
        for name, sizes, kind, offset in self.tensors:
            numbers = [size % 2**64 for size in sizes]
            parts += [
                _counted(name),
                struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *numbers, kind % 2**32, offset % 2**64),
            ]
        head = b"".join(parts)
        return head + bytes(-len(head) % 32) + self.body


def _counted(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _value_for(random: Random, texts: list[bytes]) -> tuple[int, bytes]:
    """Metadata of any kind."""
    kind = random.choice([*_SCALARS, _STRING, _ARRAY, _ARRAY])
    if kind == _STRING:
        return kind, _counted(random.choice([*texts, b"", b"x", b"\xff"]))
    if kind == _ARRAY:
        item = random.choice([_STRING, *_SCALARS])
        count = random.randrange(4)
        if item == _STRING:
            return kind, struct.pack("<IQ", item, count) + b"".join(
                _counted(random.choice(texts or [b""])) for _ in range(count)
            )
        return kind, struct.pack("<IQ", item, count) + random.randbytes(count * struct.calcsize(_SCALARS[item]))
    return kind, _number(kind, random)


def _number(kind: int, random: Random) -> bytes:
    code = _SCALARS[kind]
    if code in "fd":
        return struct.pack("<" + code, random.choice([0.0, -1.0, 1e-30, 1e30, 0.5, float("nan"), float("inf"), 1e-45]))
    return random.choice([random.choice(_NUMBERS), random.randrange(40)]).to_bytes(9, "little")[
        : struct.calcsize("<" + code)
    ]


def gguf_changed(data: bytes, random: Random) -> bytes:
    """One of its metadata, tensors or bytes changed."""
    try:
        file = Gguf(data)
    except (ValueError, KeyError, struct.error, OverflowError, MemoryError):
        return bytes_changed(data, random)
    texts = (
        [key for key, *_ in file.metadata]
        + [name for name, *_ in file.tensors]
        + [v[8:] for _, kind, v in file.metadata if kind == _STRING]
    )
    for _ in range(random.randrange(1, 4)):
        entries = random.choice([file.metadata, file.metadata, file.tensors])
        if not entries or random.random() < 0.1:
            file.body = bytes_changed(file.body, random)
            continue
        at = random.randrange(len(entries))
        entry = entries[at] = list(entries[at])
        match random.randrange(8):
            case 0:
                del entries[at]
            case 1:
                entries.append(entry)
            case 2:
                entry[0] = random.choice([*texts, bytes_changed(entry[0], random)])
            case _ if entries is file.tensors:
                entry[1] = random.choice(
                    [entry[1][::-1], entry[1][1:], [*entry[1], 1], [random.choice(_NUMBERS), *entry[1][1:]], [32, 1]]
                )
                entry[2] = random.choice([entry[2], entry[2], random.randrange(42)])
                entry[3] = random.choice([entry[3], entry[3], entry[3] + 32, random.choice(_NUMBERS)])
            case 3 if entry[1] in _SCALARS:
                entry[2] = _number(entry[1], random)
            case 4 if entry[1] in (_ARRAY, _STRING):
                entry[2] = bytes_changed(entry[2], random)
            case _:
                entry[1:] = _value_for(random, texts)
    return file.made()
