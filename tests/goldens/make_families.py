"""What transformers computes of every family, of weights that anybody can make again: families.json.

    python -m tests.goldens.make_families        # needs torch and transformers

Weights are raw words of PCG64 seeded by their names, so that they are the same wherever NumPy is.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from pathlib import Path

import numpy as np

from fastdistill.checkpoint import Config, Tensor
from fastdistill.checkpoint.folder import write_checkpoint
from fastdistill.models import plan_for
from tests.families import CAUSAL, SOURCED, family_config

GOLDENS = Path(__file__).with_name("families.json")
TOKENS, NEW = 40, 32


def weights(stored: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Numbers in [-1, 1) of each tensor, over the root of a row's length; those of norms around 1, biases small."""
    made = {}
    for name, shape in stored.items():
        words = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
        values = ((words >> np.uint64(40)).astype(np.float32) / 2**23 - 1).reshape(shape)
        values *= 0.3 if len(shape) == 1 else 2 * shape[-1] ** -0.5
        made[name] = Tensor(
            name, "f32", shape, values + np.float32("norm" in name or ".ln_" in name) * (len(shape) == 1)
        )
    return made


def write_folder(folder: Path, config: Config) -> None:
    """The checkpoint of such weights."""
    write_checkpoint(folder, config.raw, weights(plan_for(config).stored).values(), {})


def text(vocab_size: int) -> list[int]:
    """Tokens, the same everywhere."""
    return [(7 * i * i + 3 * i + 1) % vocab_size for i in range(TOKENS)]


def golden(name: str) -> dict[str, object]:
    """What transformers says of a case: logits of some rows, and what it writes greedily; of a source, the tokens backwards, where it reads one."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    with tempfile.TemporaryDirectory() as folder:
        config = family_config(name)
        write_folder(Path(folder) / "model", config)
        experts = {} if name in SOURCED else {"experts_implementation": "eager"}
        model = (
            (AutoModelForSeq2SeqLM if name in SOURCED else AutoModelForCausalLM)
            .from_pretrained(Path(folder) / "model", dtype=torch.float32, attn_implementation="eager", **experts)
            .eval()
        )
    tokens = text(model.config.vocab_size)

    def logits(ids: list[int]) -> torch.Tensor:
        given = {"input_ids": [tokens[::-1]], "decoder_input_ids": [ids]} if name in SOURCED else {"input_ids": [ids]}
        return model(**{key: torch.tensor(value) for key, value in given.items()}).logits[0]

    new = 24 - 8 if "long" in name else NEW  # beyond 24 positions other frequencies are in force
    with torch.no_grad():
        rows = logits(tokens).numpy()
        written = list(tokens[:8])
        for _ in range(new):
            written.append(int(logits(written)[-1].argmax()))
    kept = {str(row): [float(f"{value:.6g}") for value in rows[row]] for row in (0, 20, TOKENS - 1)}
    return {"logits": kept, "written": written[8:]}


if __name__ == "__main__":
    GOLDENS.write_text(json.dumps({name: golden(name) for name in (*CAUSAL, *SOURCED)}) + "\n", encoding="utf-8")
