"""A small tokenizer with turns, bytes and an end, and its chat template: as published models have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastdistill.models import plan_for
from fastdistill.runtime.network import Network
from fastdistill.text.tokenizer import Tokenizer
from fastdistill.train.data import Dataset
from tests.small_models import llada_config, tensors
from tests.text.tokenizers_made_here import BYTE_LEVEL, added, bpe, byte_spelling, tokenizer_json, write_folder

SPECIAL = ["<|end|>", "<|start|>"]
END, START = range(2)
MERGES = ["a b", "ab c"]
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
# Thinking stays in the last turn alone, as Qwen3 has it.
THINKING = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{% if m.thinking and loop.last %}[{{ m.thinking }}]{% endif %}"
    "{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def tokenizer(folder: Path, template: str = TEMPLATE, begins: bool = False, **config: str) -> Tokenizer:
    """260 tokens: fewer than the "plain" small model has."""
    tokens = [*SPECIAL, *byte_spelling(), *(merge.replace(" ", "") for merge in MERGES)]
    made = tokenizer_json(
        bpe(tokens, MERGES),
        BYTE_LEVEL,
        BYTE_LEVEL,
        [added(i, token, True) for i, token in enumerate(SPECIAL)],
    )
    if begins:  # as Llama's texts do
        start = {"id": "<|start|>", "ids": [START], "tokens": ["<|start|>"]}
        pieces = [{"SpecialToken": {"id": "<|start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        made["post_processor"] = {
            "type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": {"<|start|>": start}
        }  # fmt: skip
    names = {"chat_template": template, "eos_token": "<|end|>"} | config
    return Tokenizer(write_folder(folder, made, **{name: value for name, value in names.items() if value}))


def data_of(lengths: list[int], prompts: list[int] | None = None, seed: int = 0, vocab: int = 300) -> Dataset:
    """Sequences of random tokens; all that follows a prompt is to be predicted."""
    tokens = np.random.default_rng(seed).integers(0, vocab, sum(lengths), dtype=np.int32)
    prompts = [0] * len(lengths) if prompts is None else prompts
    counted = [place >= prompt for length, prompt in zip(lengths, prompts, strict=True) for place in range(length)]
    return Dataset(tokens, np.cumsum([0, *lengths]), np.array(counted, bool), np.array(prompts, np.int32))


def masked() -> Network:
    """A model that predicts a token from both sides of it."""
    plan = plan_for(llada_config())
    return Network(plan, tensors(plan))
