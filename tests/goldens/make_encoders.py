"""What transformers computes of every encoder, of weights that anybody can make again: encoders.json.

python -m tests.goldens.make_encoders        # needs torch and transformers
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.encoders import CASES, encoder_config
from tests.goldens.make_families import write_folder

GOLDENS = Path(__file__).with_name("encoders.json")
TOKENS = 40


def text(name: str) -> tuple[list[int], np.ndarray]:
    """Tokens, the same everywhere, none of which pads; and the parts that they belong to, where the class has some."""
    tokens = [3 + (7 * i * i + 3 * i + 1) % 79 for i in range(TOKENS)]
    model_type, made, _ = CASES[name]
    parts = model_type == "bert" and made in ("BertModel", "BertForSequenceClassification")
    return tokens, (np.arange(TOKENS) > 25).astype(np.int32) * parts


def golden(name: str) -> dict[str, Any]:
    """What transformers says of a case."""
    import torch
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder) / "model", encoder_config(name))
        made = getattr(transformers, CASES[name][1])
        model = made.from_pretrained(Path(folder) / "model", dtype=torch.float32, attn_implementation="eager").eval()
    tokens, types = text(name)
    given = {"token_type_ids": torch.tensor(types[None].astype(np.int64))} if types.any() else {}
    with torch.no_grad():
        out = model(torch.tensor([tokens]), output_hidden_states=True, **given)
    hidden = out.hidden_states[-1] if getattr(out, "last_hidden_state", None) is None else out.last_hidden_state
    said: dict[str, Any] = {"hidden": rows(hidden)}
    logits = out.prediction_logits if "PreTraining" in CASES[name][1] else getattr(out, "logits", None)
    if logits is not None and logits.ndim == 3:
        said["logits"] = rows(logits)
    elif logits is not None:
        said["scores"] = numbers(logits[0])
    if getattr(out, "pooler_output", None) is not None:
        said["pooled"] = numbers(out.pooler_output[0])
    return said


def rows(values: Any) -> dict[str, list[float]]:
    return {str(row): numbers(values[0, row]) for row in (0, 20, TOKENS - 1)}


def numbers(values: Any) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]


if __name__ == "__main__":
    GOLDENS.write_text(json.dumps({name: golden(name) for name in CASES}) + "\n", encoding="utf-8")
