"""Model.fill beside the fill-mask pipeline of transformers: the likeliest tokens of each mask, and their probabilities."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fastdistill as fd
from tests.encoders import CASES, SPECIAL, words_tokenizer
from tests.models.test_encoders_peers import made, transformers

pytestmark = pytest.mark.peers
TEXTS = ["one two [MASK] four", "[MASK] is a text of the text", "[MASK] two three [MASK]"]


@pytest.mark.parametrize(
    "name", ["bert, masks", "roberta, masks", "distilbert, masks", "mpnet, masks", "modernbert, masks"]
)
def test_the_likeliest_tokens_are_those_of_the_pipeline(tmp_path, name):
    """Theirs may put the mask itself into a mask; its probability is shared out among the others here."""
    model_type, kind, raw = CASES[name]
    model = made(tmp_path, kind, {"model_type": model_type} | raw)
    named = {f"{part}_token": token for part, token in zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True)}
    (tmp_path / "tokenizer.json").write_text(json.dumps(words_tokenizer()))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), **named)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    pipeline = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer, top_k=raw["vocab_size"])
    ours = fd.load(tmp_path, threads=2)
    assert ours.plan.mask_token == tokenizer.mask_token_id
    for text, got in zip(TEXTS, ours.fill(TEXTS, logprobs=5, decoder=fd.Unmask(max_steps=1)), strict=True):
        masks = pipeline(text)
        for entry, said in zip(masks if text.count("[MASK]") > 1 else [masks], got.logprobs, strict=True):
            shares = {each["token"]: each["score"] for each in entry}
            rest = 1 - shares.pop(tokenizer.mask_token_id)
            best = list(shares)[:5]
            assert [token for token, _ in said.top] == best and said.token == best[0]
            np.testing.assert_allclose(
                np.exp([value for _, value in said.top]), [shares[token] / rest for token in best], atol=1e-4
            )
