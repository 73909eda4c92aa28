"""GGUF files to checkpoint folders.

A GGUF file is a header (metadata, then each tensor's name, type, shape and offset) and the tensors' bytes. The header
is read here and checked against the file's size before any of it is believed: nothing is allocated that the file is
too short to fill, and what a header may hold has a bound. Tensors are then read one at a time; a file cut short
meanwhile is an error.

Q4_0, Q4_1 and Q8_0 keep their codes and scales, F32, F16 and BF16 their bits. The package `gguf` is needed only for
the other types, which are dequantised.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastdistill.arguments import check_callable, check_choice, check_flag, check_path
from fastdistill.checkpoint.folder import check_tensors, write_checkpoint
from fastdistill.checkpoint.quantize import quantize_tensor
from fastdistill.checkpoint.tensor import FORMATS, Tensor
from fastdistill.errors import CheckpointError, UnsupportedError
from fastdistill.files import RegularFile
from fastdistill.messages import short


def convert_gguf(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    format: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the model of a GGUF file as a checkpoint folder with config, tokenizer and chat template.

    source       a GGUF file, version 2 or 3, architecture llama
    destination  the folder to make; it appears complete or not at all
    format       None keeps Q4_0, Q4_1, Q8_0, F32, F16 and BF16 as they are and dequantises the rest to f32;
                 "q8", "q4", "f32", ... converts every matrix to that format (norms and biases stay as they are)
    progress     called with (bytes done, bytes in all) after each tensor

    returns      the destination

    Raises CheckpointError for a file that is not what its header says, UnsupportedError for a model, tensor type or
    tokenizer that has no equal here, ArgumentError for an unknown format.
    """
    source, destination = check_path("source", source), check_path("destination", destination)
    if format is not None:
        check_choice("format", format, FORMATS)
    check_flag("overwrite", overwrite)
    if progress is not None:
        check_callable("progress", progress)
    with GgufFile(source) as file:
        parts = file.get("split.count", int, 1)
        if parts > 1:
            raise UnsupportedError(
                f"{file.name}: is one of the {parts} parts of a model: join them first, "
                "`llama-gguf-split --merge FIRST_PART WHOLE`, and convert WHOLE"
            )
        architecture = file.get("general.architecture", str)
        if architecture != "llama":
            raise UnsupportedError(f"{file.name}: architecture {short(architecture)} cannot be converted; llama can")
        config = _config(file)
        _pre_tokenizer(file)  # which says more than what its vocabulary lacks
        tokens, types, merges = _vocabulary(file)
        files = {
            "tokenizer.json": _json(_tokenizer(file, tokens, types, merges), indent=None),
            "tokenizer_config.json": _json(_tokenizer_config(file)),
            "generation_config.json": _json(_generation_config(file, tokens, types)),
            "NOTICE": _notice(file).encode(),
        }
        tensors = _tensors(file, config, format, progress)
        write_checkpoint(destination, config, tensors, files, overwrite=overwrite)
    return destination


# --- the file: header and tensors -------------------------------------------------------------------------------------

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

# A header of 262,144 tokens and 514,906 merges, the largest one known, takes 20 MB; a string of Python takes some ten
# times the least that it takes in a file, a tensor's description more.
_MAX_HEADER, _MAX_STRINGS, _MAX_ENTRIES = 1 << 26, 1 << 21, 1 << 16
_WINDOW = 1 << 20  # bytes of the header read at a time

F32, F16, Q4_0, Q4_1, Q8_0, BF16 = 0, 1, 2, 3, 8, 30
# Type -> (values in a block, bytes of a block).
_BLOCKS = {F32: (1, 4), F16: (1, 2), BF16: (1, 2), Q4_0: (32, 18), Q4_1: (32, 20), Q8_0: (32, 34)}


@dataclass(frozen=True)
class GgufTensor:
    """What the header says of one tensor; shape is (out, in): GGUF writes it in the other order.

    name    as in the file
    type    GGML's number of the format
    shape   of the numbers, not of the bytes
    offset  bytes from the file's first one
    size    how many bytes
    """

    name: str
    type: int
    shape: tuple[int, ...]
    offset: int
    size: int


class GgufFile:
    """An open GGUF file: `metadata` and `tensors` by name, both checked against the size of the file.

    Raises CheckpointError, or UnsupportedError for another version, byte order or tensor type.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, GgufTensor] = {}
        self._file = RegularFile(path)
        self.name = self._file.path
        self._position, self._window, self._window_start, self._strings = 0, b"", 0, 0
        self._read_header()
        self._window = b""

    def __enter__(self) -> GgufFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def get(self, key: str, kind: type, default: Any = ...) -> Any:
        """The metadata value `key`, of type bool, int, float or str; without a default it must be there."""
        value = self.metadata.get(key, default)
        if value is ...:
            raise CheckpointError(f"{self.name}: metadata {key} is missing")
        if value is default:
            return value
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise CheckpointError(f"{self.name}: metadata {key} must be {kind.__name__}, got {short(value)}")
        return value

    def read(self, tensor: GgufTensor) -> np.ndarray:
        """The bytes of a tensor, uint8 (..., bytes of a row)."""
        return self._file.read(tensor.size, tensor.offset, tensor.name).reshape(*tensor.shape[:-1], -1)

    def _take(self, size: int, what: str) -> bytes:
        """The next bytes of the header."""
        begin, end = self._position, self._position + size
        if end > self._file.size:
            raise CheckpointError(
                f"{self.name}: {what} takes {size} bytes at offset {begin}, but the file has {self._file.size}"
            )
        if end > _MAX_HEADER:
            raise CheckpointError(
                f"{self.name}: {what} takes {size} bytes at offset {begin}; a header has at most {_MAX_HEADER}"
            )
        if end > self._window_start + len(self._window):
            length = min(max(size, _WINDOW), self._file.size - begin)
            self._window, self._window_start = self._file.read(length, begin, what).tobytes(), begin
        self._position = end
        return self._window[begin - self._window_start : end - self._window_start]

    def _number(self, code: str, what: str) -> Any:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code), what))[0]

    def _string(self, what: str) -> str:
        try:
            return self._take(self._number("Q", what), what).decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.name}: {what} is not UTF-8: {error}") from error

    def _value(self, kind: int, what: str) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind], what)
        if kind == _STRING:
            return self._string(what)
        if kind != _ARRAY:
            raise CheckpointError(f"{self.name}: {what} has the unknown value type {kind}")
        kind, count = self._number("I", what), self._number("Q", what)
        if kind == _STRING:
            self._strings += count
            if self._strings > _MAX_STRINGS:
                raise CheckpointError(f"{self.name}: {what} has {count} strings; all have at most {_MAX_STRINGS}")
            return [self._string(what) for _ in range(count)]
        if kind not in _SCALARS:
            raise CheckpointError(f"{self.name}: {what} is an array of the unknown value type {kind}")
        dtype = np.dtype(_SCALARS[kind]).newbyteorder("<")
        return np.frombuffer(self._take(count * dtype.itemsize, what), dtype)

    def _read_header(self) -> None:
        if (magic := self._take(4, "the magic number")) != b"GGUF":
            raise CheckpointError(f"{self.name}: is not a GGUF file: it starts with {short(magic)}, not b'GGUF'")
        if (version := self._number("I", "the version")) not in (2, 3):
            raise UnsupportedError(f"{self.name}: GGUF version {version:#x}; 2 and 3 (little-endian) can be read")
        tensors, pairs = self._number("Q", "the tensor count"), self._number("Q", "the metadata count")
        if tensors > _MAX_ENTRIES or pairs > _MAX_ENTRIES:
            raise CheckpointError(
                f"{self.name}: says that it has {tensors} tensors and {pairs} metadata; expected at most {_MAX_ENTRIES}"
            )
        for _ in range(pairs):
            key = self._string("a metadata key")
            if key in self.metadata:
                raise CheckpointError(f"{self.name}: metadata {short(key)} comes twice")
            kind = self._number("I", f"metadata {short(key)}")
            self.metadata[key] = self._value(kind, f"metadata {short(key)}")
        for _ in range(tensors):
            tensor = self._read_tensor()
            if tensor.name in self.tensors:
                raise CheckpointError(f"{self.name}: tensor {short(tensor.name)} comes twice")
            self.tensors[tensor.name] = tensor
        self._place_tensors()

    def _read_tensor(self) -> GgufTensor:
        name = self._string("a tensor name")
        what = f"tensor {short(name)}"
        rank = self._number("I", what)
        if not 1 <= rank <= 4:
            raise CheckpointError(f"{self.name}: {what} must have 1 to 4 dimensions, got {rank}")
        shape = tuple(self._number("Q", what) for _ in range(rank))[::-1]
        if 0 in shape:
            raise CheckpointError(f"{self.name}: {what} is empty: its shape is {shape}")
        kind, offset = self._number("I", what), self._number("Q", what)
        values, size = _BLOCKS.get(kind) or _other_block(kind, f"{self.name}: {what}")
        if shape[-1] % values:
            raise CheckpointError(f"{self.name}: {what} has rows of {shape[-1]} values, not whole blocks of {values}")
        return GgufTensor(name, kind, shape, offset, math.prod(shape) // values * size)

    def _place_tensors(self) -> None:
        """Turn the offsets into places in the file; every tensor inside it, no two over the same bytes."""
        alignment = self.get("general.alignment", int, 32)
        if alignment < 1 or alignment & (alignment - 1):
            raise CheckpointError(f"{self.name}: general.alignment must be a power of two, got {alignment}")
        start = end = -(-self._position // alignment) * alignment
        for tensor in sorted(self.tensors.values(), key=lambda tensor: (tensor.offset, tensor.size)):
            placed = replace(tensor, offset=start + tensor.offset)
            if tensor.offset % alignment or placed.offset < end or placed.offset + tensor.size > self._file.size:
                raise CheckpointError(
                    f"{self.name}: tensor {short(tensor.name)} has {tensor.size} bytes at offset {placed.offset}; "
                    f"expected a multiple of {alignment} after {start}, from {end} to {self._file.size}"
                )
            end = placed.offset + tensor.size
            self.tensors[tensor.name] = placed


def _gguf() -> Any:
    """The package `gguf`, which knows every other type of tensor."""
    try:
        import gguf
        import gguf.quants
    except ImportError as error:
        raise UnsupportedError(
            f'this type of tensor needs the package gguf ({error}): pip install "fastdistill[demo]"'
        ) from error
    return gguf


def _other_block(kind: int, what: str) -> tuple[int, int]:
    gguf = _gguf()
    try:
        return gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
    except (ValueError, KeyError):
        raise UnsupportedError(f"{what} has the type {kind}, which the package gguf does not know") from None


# --- tensors ----------------------------------------------------------------------------------------------------------

_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors that a config asks for, by their names in GGUF."""
    width, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    q, kv = (config[heads] * config["head_dim"] for heads in ("num_attention_heads", "num_key_value_heads"))
    linears = {
        "attn_q": (q, width), "attn_k": (kv, width), "attn_v": (kv, width), "attn_output": (width, q),
        "ffn_gate": (inner, width), "ffn_up": (inner, width), "ffn_down": (width, inner),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocab, width), "output_norm.weight": (width,)}
    if not config["tie_word_embeddings"]:
        shapes["output.weight"] = (vocab, width)
    for layer in (f"blk.{i}." for i in range(config["num_hidden_layers"])):
        shapes |= {layer + name + ".weight": (width,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {layer + name + ".weight": shape for name, shape in linears.items()}
        for name, (out, _) in linears.items():
            if config["attention_bias" if name.startswith("attn") else "mlp_bias"]:
                shapes[layer + name + ".bias"] = (out,)
    return shapes


def _hugging_face_name(name: str) -> str:
    *layer, word, suffix = name.split(".")
    return f"model.layers.{layer[1]}.{_LAYER_NAMES[word]}.{suffix}" if layer else f"{_NAMES[word]}.{suffix}"


def _tensors(
    file: GgufFile, config: Mapping[str, Any], format: str | None, progress: Callable[[int, int], None] | None
) -> Iterator[Tensor]:
    """The model's tensors under their names here, read and converted one at a time."""
    names = list(_shapes(config))
    done, total = 0, sum(file.tensors[name].size for name in names)
    for name in names:
        found = file.tensors[name]
        tensor = _tensor(file, found, _hugging_face_name(name))
        if ".attn_q." in name:
            tensor = tensor.rows(rotary_rows(found.shape[0], config["num_attention_heads"]))
        elif ".attn_k." in name:
            tensor = tensor.rows(rotary_rows(found.shape[0], config["num_key_value_heads"]))
        if format is not None and len(tensor.shape) == 2:
            tensor = quantize_tensor(tensor, format)
        yield tensor
        done += found.size
        if progress is not None:
            progress(done, total)


def _tensor(file: GgufFile, found: GgufTensor, name: str) -> Tensor:
    raw = file.read(found)
    if found.type == F32:
        return Tensor(name, "f32", found.shape, raw.view("<f4"))
    if found.type == F16:
        return Tensor(name, "f16", found.shape, raw.view("<f2"))
    if found.type == BF16:
        return Tensor(name, "bf16", found.shape, raw.view("<u2"))
    if found.type in _BLOCKS and len(found.shape) == 2:
        return _blocks(file, found, name, raw)
    gguf = _gguf()
    try:
        with np.errstate(all="ignore"):
            values = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(found.type))
    except NotImplementedError as error:
        raise UnsupportedError(f"{file.name}: tensor {found.name} cannot be dequantised: {error}") from None
    if not np.isfinite(values).all():
        raise CheckpointError(f"{file.name}: tensor {found.name} is not finite: some of its scales are not")
    return Tensor(name, "f32", found.shape, np.ascontiguousarray(values, np.float32))


def _blocks(file: GgufFile, found: GgufTensor, name: str, raw: np.ndarray) -> Tensor:
    """A Q4_0, Q4_1 or Q8_0 matrix, its codes and scales untouched.

    Q4_0 means d * (code - 8): as q4, its minimum is -8 d. Times eight is exact in f16 unless it overflows; then the
    tensor becomes q8 with the codes less 8.
    """
    rows, blocks = found.shape[0], found.shape[1] // 32
    raw = raw.reshape(rows, blocks, _BLOCKS[found.type][1])

    def scales(at: int) -> np.ndarray:
        values = np.ascontiguousarray(raw[:, :, at : at + 2]).view("<f2").reshape(rows, blocks)
        if not np.isfinite(values).all():
            row, block = np.argwhere(~np.isfinite(values))[0]
            raise CheckpointError(
                f"{file.name}: tensor {found.name}: the scale of row {row}, block {block} is {values[row, block]}"
            )
        return values

    scale = scales(0)
    if found.type == Q8_0:
        return Tensor(name, "q8", found.shape, raw[:, :, 2:].reshape(rows, -1).view(np.int8), scale)
    if found.type == Q4_1:
        return Tensor(name, "q4", found.shape, raw[:, :, 4:].reshape(rows, -1), scale, scales(2))
    codes = raw[:, :, 2:]
    if (np.abs(scale) <= np.finfo(np.float16).max / 8).all():
        return Tensor(name, "q4", found.shape, codes.reshape(rows, -1), scale, scale * np.float16(-8))
    codes = np.concatenate([codes & 15, codes >> 4], axis=2).view(np.int8) - np.int8(8)
    return Tensor(name, "q8", found.shape, codes.reshape(rows, -1), scale)


def rotary_rows(rows: int, heads: int) -> np.ndarray:
    """Where each row of a query or key projection lies in a GGUF file, int64 (rows,).

    Hugging Face rotates row i of a head with row i + half; llama.cpp rotates neighbours, so its converter writes them
    interleaved: i to 2 i, i + half to 2 i + 1. A row is whole blocks: moving it loses nothing.
    """
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).ravel()


# --- config -----------------------------------------------------------------------------------------------------------

# What changes the arithmetic and is not in the list is refused: a wrong answer is worse than none.
_KEYS = {
    "vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.layer_norm_rms_epsilon",
    "rope.dimension_count", "rope.freq_base", "rope.scale_linear", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.finetuned", "tensor_data_layout", "expert_count",
    "expert_used_count",
}  # fmt: skip


def _config(file: GgufFile) -> dict[str, Any]:
    """config.json in the form of Hugging Face's LlamaForCausalLM, checked against the tensors' names and shapes."""

    def refuse(what: str) -> None:
        raise UnsupportedError(f"{file.name}: {what} cannot be converted")

    def size(key: str, default: Any = ...) -> int:
        value = file.get("llama." + key, int, default)
        if value < 1:
            raise CheckpointError(f"{file.name}: metadata llama.{key} must be at least 1, got {value}")
        return value

    def positive(key: str, default: Any = ...) -> float:
        value = file.get("llama." + key, float, default)
        with np.errstate(all="ignore"):
            rounded = np.float32(value)
        if not 0 < rounded < np.inf:
            raise CheckpointError(f"{file.name}: metadata llama.{key} must be a positive float32, got {value}")
        return float(str(rounded))  # the shortest decimal of the same float32: 1e-05, not 9.999999747e-06

    for key in file.metadata:
        if key.startswith("llama.") and key.removeprefix("llama.") not in _KEYS:
            refuse(f"metadata {short(key)}")
    if file.get("llama.expert_count", int, 0) or file.get("llama.expert_used_count", int, 0):
        refuse("a mixture of experts")

    width, layers, heads = size("embedding_length"), size("block_count"), size("attention.head_count")
    key_value_heads = size("attention.head_count_kv", heads)
    head_dim = size("attention.key_length", max(1, width // heads))
    if size("attention.value_length", head_dim) != head_dim or size("rope.dimension_count", head_dim) != head_dim:
        refuse("a model whose key, value and rotary widths differ")
    if heads % key_value_heads or head_dim % 2:
        raise CheckpointError(
            f"{file.name}: {heads} heads of width {head_dim} over {key_value_heads} key and value heads; expected an "
            "even width, and heads in equal groups"
        )
    if layers > len(file.tensors):
        raise CheckpointError(f"{file.name}: llama.block_count is {layers}, but there are {len(file.tensors)} tensors")
    embedding = file.tensors.get("token_embd.weight")
    vocab = size("vocab_size", embedding.shape[0] if embedding else 1)
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": size("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": size("context_length"),
        "vocab_size": vocab,
        "rms_norm_eps": positive("attention.layer_norm_rms_epsilon"),
        "rope_theta": positive("rope.freq_base", 10000.0),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": any(".attn_" in name and name.endswith(".bias") for name in file.tensors),
        "mlp_bias": any(".ffn_" in name and name.endswith(".bias") for name in file.tensors),
    }
    try:
        check_tensors(file.tensors, _shapes(config), {"rope_freqs.weight": "its meaning is in the config"})
    except CheckpointError as error:
        raise CheckpointError(f"{file.name}: {error}") from None
    config |= _special_ids(file)

    older = "linear" if "llama.rope.scale_linear" in file.metadata else "none"
    scaling = file.get("llama.rope.scaling.type", str, older)
    if scaling == "linear":
        factor = positive("rope.scaling.factor", positive("rope.scale_linear", 1.0))
        config["rope_scaling"] = {"rope_type": "linear", "factor": factor}
    elif scaling != "none":
        refuse(f"rope scaling {short(scaling)}")
    if "rope_freqs.weight" in file.tensors:
        if scaling != "none":
            refuse(f"rope_freqs.weight beside rope scaling {scaling}")
        config["rope_scaling"] = _llama3_scaling(file, config)
    return config


def _llama3_scaling(file: GgufFile, config: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters behind `rope_freqs.weight`, by which llama.cpp divides each rotary frequency.

    Llama 3's rule leaves wavelengths below original / high alone, divides those above original / low by `factor`, and
    interpolates between. The file has only the quotients, so the published parameters (low 1, high 4, original 8192)
    are tried, and must give every one of them back to float32's precision.
    """
    found = _tensor(file, file.tensors["rope_freqs.weight"], "rope_freqs.weight").to_float32().astype(np.float64)
    head_dim = config["head_dim"]
    factor, low, high, original = float(found.max(initial=1.0)), 1.0, 4.0, 8192
    wavelength = 2 * np.pi * config["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((original / wavelength - low) / (high - low), 0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth) if np.isfinite(factor) and factor >= 1 else np.zeros(0)
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-5, atol=0):
        raise UnsupportedError(f"{file.name}: rope_freqs.weight is not of the form that Llama 3's scaling gives")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def _token_id(file: GgufFile, key: str) -> int | None:
    """The token that the metadata name: bos, eos, eot, unknown, padding."""
    index = file.get(f"tokenizer.ggml.{key}_token_id", int, None)
    rows = file.tensors["token_embd.weight"].shape[0]
    if index is not None and not 0 <= index < rows:
        raise CheckpointError(f"{file.name}: tokenizer.ggml.{key}_token_id is {index}, but there are {rows} tokens")
    return index


def _special_ids(file: GgufFile) -> dict[str, Any]:
    ids = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    return {name: index for name, key in ids.items() if (index := _token_id(file, key)) is not None}


# What llama.cpp takes as the end of a text: by metadata, and where a control token has one of these names.
_ENDS_BY_KEY = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
_ENDS_BY_NAME = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>",
    "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>",
    # the next file of a text of code, and its padding
    "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>",
    "<reponame>", "<|file_sep|>",
}  # fmt: skip
# Beside all of those on the right, the one on the left ends a part of a message, or nothing.
_NO_ENDS = [
    ("<|end|>", {"<|return|>", "<|call|>"}),
    ("<|end|>", {"<|calls|>", "<|flush|>"}),
    ("</s>", {"<|tool_response>"}),
]


def _generation_config(file: GgufFile, tokens: list[str], types: list[int]) -> dict[str, Any]:
    """The special tokens; what ends a turn, a message or a file ends a text too."""
    named = {token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL and token in _ENDS_BY_NAME}
    named -= {name for name, beside in _NO_ENDS if beside <= named}
    ends = {index for index, token in enumerate(tokens) if token in named}
    ends |= {index for key in _ENDS_BY_KEY if (index := _token_id(file, key)) is not None}
    return _special_ids(file) | ({"eos_token_id": sorted(ends)} if ends else {})


def _notice(file: GgufFile) -> str:
    """Where the weights come from and under which licence, as far as the file says."""
    lines = [f"Converted by fastdistill from the GGUF file {os.path.basename(file.name)}. Its metadata say:"]
    for key in ("name", "organization", "author", "url", "source.url", "license", "license.name", "license.link"):
        value = file.metadata.get("general." + key)
        if isinstance(value, str):
            lines.append(f"    {key}: {value[:1000]}")
    return "\n".join(lines) + "\n"


def _json(value: Any, indent: int | None = 2) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=indent).encode()


# --- tokenizer --------------------------------------------------------------------------------------------------------

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # of a token's types, those that text cannot merge into


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _split(digits: str) -> dict[str, Any]:
    """The splitting that Llama 3 and Qwen 2 share but for the length of their runs of digits."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(use_regex=False)]}


_DIGITS = {"type": "Digits", "individual_digits": True}
_PRE_TOKENIZERS = {
    "gpt-2": _byte_level(use_regex=True),
    "smollm": {"type": "Sequence", "pretokenizers": [_DIGITS, _byte_level(use_regex=True)]},
    "llama-bpe": _split(r"\p{N}{1,3}"),
    "qwen2": _split(r"\p{N}"),
}
# Other names that llama.cpp gives to the same: splitting, adding of bos, taking of whole words.
_ALIASES = {
    "gpt-2": ("phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "gigachat", "a.x-4.0", "mellum", "modern-bert",
              "exaone4", "mpt", "olmo", "jais", "trillion", "granite-docling"),
    "smollm": ("starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
    "llama-bpe": ("llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"),
    "qwen2": ("deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan"),
}  # fmt: skip
_SAME = {name: same for same, names in _ALIASES.items() for name in (same, *names)}


def _pre_tokenizer(file: GgufFile) -> str:
    """Which of _PRE_TOKENIZERS the file's tokenizer has."""
    model, name = file.get("tokenizer.ggml.model", str), file.get("tokenizer.ggml.pre", str, "default")
    if model != "gpt2":
        raise UnsupportedError(f"{file.name}: tokenizer {short(model)} cannot be converted; gpt2 (byte-level BPE) can")
    if name not in _SAME:
        known = ", ".join(sorted(_SAME))
        raise UnsupportedError(f"{file.name}: pre-tokenizer {short(name)} cannot be converted; {known} can")
    return _SAME[name]


def _tokenizer(file: GgufFile, tokens: list[str], types: list[int], merges: list[tuple[str, str]]) -> dict[str, Any]:
    """tokenizer.json: the byte-level BPE that the file's tokens, merges and pre-tokenizer describe.

    Qwen2's own tokenizer puts text into NFC before all else, which its GGUF files do not say: so does this one, and a
    model has the same tokens whichever kind of file it came in. The other names of its splitting stand for tokenizers
    of several models: as in llama.cpp, nothing is normalised for them.
    """
    pre, nfc = _pre_tokenizer(file), file.metadata["tokenizer.ggml.pre"] == "qwen2"
    added = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind in (_UNKNOWN, _CONTROL),
        }
        for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if nfc else None,
        "pre_tokenizer": _PRE_TOKENIZERS[pre],
        "post_processor": _post_processor(file, tokens),
        "decoder": _byte_level(use_regex=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre == "llama-bpe",
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def _vocabulary(file: GgufFile) -> tuple[list[str], list[int], list[tuple[str, str]]]:
    """Tokens, their types, and the merges, each checked against the others."""

    def listed(key: str, kind: type, items: str) -> Any:
        value = file.metadata.get("tokenizer.ggml." + key)
        if not isinstance(value, kind) or (isinstance(value, np.ndarray) and value.dtype.kind not in "iu"):
            raise CheckpointError(
                f"{file.name}: metadata tokenizer.ggml.{key} must be an array of {items}, got {short(value)}"
            )
        return value

    tokens, merges = listed("tokens", list, "strings"), listed("merges", list, "strings")
    types, rows = listed("token_type", np.ndarray, "integers"), file.tensors["token_embd.weight"].shape[0]
    if not len(tokens) == len(types) == rows:
        raise CheckpointError(
            f"{file.name}: {len(tokens)} tokens and {len(types)} token types for an embedding of {rows} rows"
        )
    vocabulary = set(tokens)
    if len(vocabulary) != len(tokens) or "" in vocabulary:
        raise CheckpointError(f"{file.name}: tokenizer.ggml.tokens: some are empty or come twice")
    pairs = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= vocabulary:
            raise CheckpointError(f"{file.name}: merge {short(merge)} must be two tokens that make a third")
        pairs.append((left, right))
    return tokens, types.tolist(), pairs


def _adds(file: GgufFile, key: str) -> bool:
    """Whether texts begin with bos, end with eos. Llama 3's files may leave the former out, and mean yes."""
    default = key == "bos" and _pre_tokenizer(file) == "llama-bpe"
    return file.get(f"tokenizer.ggml.add_{key}_token", bool, default)


def _post_processor(file: GgufFile, tokens: list[str]) -> dict[str, Any] | None:
    """What puts bos and eos around a text."""
    ids: dict[str, int] = {}
    for key in ("bos", "eos"):
        if _adds(file, key):
            index = _token_id(file, key)
            if index is None:
                raise CheckpointError(f"{file.name}: tokenizer.ggml.add_{key}_token is set without a {key}_token_id")
            ids[key] = index
    if not ids:
        return None

    def around(name: str, type_id: int) -> list[dict[str, Any]]:
        pieces = {key: {"SpecialToken": {"id": tokens[index], "type_id": type_id}} for key, index in ids.items()}
        pieces["text"] = {"Sequence": {"id": name, "type_id": type_id}}
        return [pieces[key] for key in ("bos", "text", "eos") if key in pieces]

    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": {
            tokens[index]: {"id": tokens[index], "ids": [index], "tokens": [tokens[index]]} for index in ids.values()
        },
    }


def _tokenizer_config(file: GgufFile) -> dict[str, Any]:
    tokens = file.metadata["tokenizer.ggml.tokens"]
    names = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": _adds(file, "bos"),
        "add_eos_token": _adds(file, "eos"),
        **{name: tokens[index] for name, key in names.items() if (index := _token_id(file, key)) is not None},
    }
    template = file.get("tokenizer.chat_template", str, None)
    return config if template is None else config | {"chat_template": template}
