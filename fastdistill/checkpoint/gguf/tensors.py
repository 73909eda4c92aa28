"""A GGUF file's tensors under the names, and with the rows in the order, that Hugging Face gives them.

Q4_0, Q4_1 and Q8_0 keep their codes and scales, F32, F16 and BF16 their bits. The package `gguf` is needed only for
the other types, which are dequantised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fastdistill.checkpoint.gguf.reader import BF16, BLOCKS, F16, F32, Q4_1, Q8_0, GgufFile, GgufTensor, gguf_package
from fastdistill.checkpoint.quantize import quantize_tensor
from fastdistill.checkpoint.tensor import Tensor
from fastdistill.errors import CheckpointError, UnsupportedError

# Type -> the format here, and the dtype of its bytes.
_NUMBERS = {F32: ("f32", "<f4"), F16: ("f16", "<f2"), BF16: ("bf16", "<u2")}

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
_ROTATED = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}


def tensor_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
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


def model_tensors(
    file: GgufFile, config: Mapping[str, Any], format: str | None, progress: Callable[[int, int], None] | None
) -> Iterator[Tensor]:
    """The model's tensors under their names here, read and converted one at a time."""
    names = list(tensor_shapes(config))
    done, total = 0, sum(file.tensors[name].size for name in names)
    for name in names:
        found = file.tensors[name]
        tensor = read_tensor(file, found, _hugging_face_name(name))
        if heads := _ROTATED.get(name.split(".")[-2]):
            tensor = tensor.rows(rotary_rows(found.shape[0], config[heads]))
        if format is not None and len(tensor.shape) == 2:
            tensor = quantize_tensor(tensor, format)
        yield tensor
        done += found.size
        if progress is not None:
            progress(done, total)


def read_tensor(file: GgufFile, found: GgufTensor, name: str) -> Tensor:
    """What the header says of a tensor, with its bytes, as a tensor of this name; rows in the file's order."""
    raw = file.read(found)
    if found.type in _NUMBERS:
        format, dtype = _NUMBERS[found.type]
        return Tensor(name, format, found.shape, raw.view(dtype))
    if found.type in BLOCKS and len(found.shape) == 2:
        return _blocks(file, found, name, raw)
    gguf = gguf_package()
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
    raw = raw.reshape(rows, blocks, BLOCKS[found.type][1])

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
