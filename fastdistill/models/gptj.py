"""GPT-J (Wang and Komatsuzaki 2021): one norm for both halves of a layer, neighbours rotated with each other."""

from __future__ import annotations

import numpy as np

from fastdistill.checkpoint.config import Config
from fastdistill.errors import UnsupportedError
from fastdistill.models.config_keys import without
from fastdistill.models.decoder import Names
from fastdistill.models.described import Sizes, decoder
from fastdistill.models.gpt2 import GPT2, MASK, SPELLING
from fastdistill.models.plan import Plan
from fastdistill.models.source import Source, stored

_NOT_GPTJ = ("scale_attn_by_inverse_layer_idx", "add_cross_attention")
MODEL_TYPES = {
    "gptj": without(GPT2, *_NOT_GPTJ)
    | {
        "vocab_size": 50400,
        "n_positions": 2048,
        "n_embd": 4096,
        "n_layer": 28,
        "n_head": 16,
        "rotary": True,
        "rotary_dim": 64,
        "tie_word_embeddings": False,
    }
}
NAMES = Names(
    embedding="transformer.wte",
    layers="transformer.h",
    attention_norm="ln_1",
    q="attn.q_proj",
    k="attn.k_proj",
    v="attn.v_proj",
    attention_out="attn.out_proj",
    mlp_norm="",
    gate="",
    up="mlp.fc_in",
    down="mlp.fc_out",
    norm="transformer.ln_f",
)


def plan(config: Config) -> Plan:
    """The forward pass of one GPT-J.  Neighbours that are rotated lie half a head apart here, in queries as in keys."""
    for key in ("rotary", "scale_attn_weights"):  # so old files say; the class reads neither
        if not config.boolean(key):
            raise UnsupportedError(f"{key} False is not supported by the gptj plan")
    config = config.respelt(**SPELLING)
    size = Sizes.of(config)
    turning = config.integer("rotary_dim", minimum=2, maximum=size.head_dim, default=size.head_dim)
    if turning % 2:
        config.refuse("rotary_dim", turning, "an even number")
    order = np.concatenate([np.arange(0, turning, 2), np.arange(1, turning, 2), np.arange(turning, size.head_dim)])
    rows = (np.arange(size.heads)[:, None] * size.head_dim + order).ravel()

    def sources(at: str) -> dict[str, Source]:
        names = [f"{at}attn.{part}_proj.weight" for part in "qk"]
        return {name: stored(name, (rows.size, size.hidden)).picked(rows) for name in names}

    return decoder(
        config,
        "gptj",
        partial=turning / size.head_dim,
        names=NAMES,
        sources=sources,
        layer_norm=True,
        parallel=True,
        mlp_bias=True,
        head_bias=True,
        ignored={f"transformer.h.*.attn.{name}": MASK for name in ("bias", "masked_bias")},
    )
