"""Beam search beside transformers' over the same functions, when each is over, and where stop strings end texts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastdistill.decode import BeamSearch, generate
from fastdistill.runtime import from_callable
from fastdistill.text.tokenizer import Tokenizer
from tests.decode.test_beam_search import TIE, found, function_of, written_with
from tests.text.tokenizers_made_here import byte_level

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


class OfFunction(transformers.PreTrainedModel, transformers.GenerationMixin):
    """Logits of a text's last row, as a function from tokens (n,) to (n, vocab) has them."""

    config_class = transformers.PretrainedConfig

    def __init__(self, logits, vocab):
        super().__init__(transformers.PretrainedConfig(vocab_size=vocab))
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.logits = logits

    def forward(self, input_ids, **_):
        rows = [self.logits(row.numpy().astype(np.int32))[-1] for row in input_ids]
        return transformers.modeling_outputs.CausalLMOutput(logits=torch.tensor(np.stack(rows))[:, None])


def theirs(model, prompt, most, ends, search, **more):
    """Texts with their scores, the best first, and how many forwards it took behind the prompt's."""
    with torch.no_grad():
        given = model.generate(
            torch.tensor([prompt]), do_sample=False, use_cache=False, max_new_tokens=most, eos_token_id=sorted(ends) or None,
            pad_token_id=0, num_beams=search.num_beams, length_penalty=search.length_penalty, early_stopping=search.early_stopping,
            num_return_sequences=search.num_beams, return_dict_in_generate=True, output_scores=True, **more,
        )  # fmt: skip
    lengths = (given.beam_indices >= 0).sum(1).tolist()  # behind them is padding
    tokens = [row[:length].tolist() for row, length in zip(given.sequences[:, len(prompt) :], lengths, strict=True)]
    return list(zip(tokens, given.sequences_scores.tolist(), strict=True)), len(given.scores) - 1


def assert_same(result, expected, forwards):
    assert result.stats.forwards == forwards
    assert [tokens for tokens, _ in found(result)] == [tokens for tokens, _ in expected]
    assert [score for _, score in found(result)] == pytest.approx([score for _, score in expected], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("early", [False, True, "never"])
@pytest.mark.parametrize("penalty", [-2.0, -0.3, 0.0, 0.5, 2.0])
def test_a_search_is_over_when_theirs_is(penalty, early):
    """-inf has another meaning to them where fewer candidates than beams are left: all tokens may come here."""
    for seed in range(25):
        made, ends = function_of(seed, 8, 1.5), {0, 3, 4}
        bias = np.isin(np.arange(8), list(ends)) * np.float32(seed % 5 / 2)

        def logits(tokens, made=made, bias=bias):
            return made(tokens) + bias

        search = BeamSearch(2, penalty, early)
        result = generate(from_callable(logits, 8), [1], 12, end_tokens=frozenset(ends), decoder=search)
        assert_same(result, *theirs(OfFunction(logits, 8), [1], 12, ends, search))


@pytest.mark.parametrize("early", [False, True, "never"])
def test_a_tie_ends_both(early):
    search = BeamSearch(2, 1.0, early)
    result = generate(from_callable(TIE, 3), [1], 6, end_tokens=frozenset({0}), decoder=search)
    assert_same(result, *theirs(OfFunction(TIE, 3), [1], 6, {0}, search))


@pytest.mark.parametrize("early", [False, True, "never"])
@pytest.mark.parametrize("penalty", [-0.3, 0.5, 2.0])
def test_stop_strings_end_texts_where_theirs_do(tmp_path, penalty, early):
    """The prompt ends with no beginning of one: there theirs may begin."""
    (tmp_path / "tokenizer.json").write_text(json.dumps(byte_level()), encoding="utf-8")
    tokenizer = Tokenizer(tmp_path)
    of_theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    stopped, vocab = 0, tokenizer.vocab_size
    for seed in range(12):
        stop = [["a"], ["t", "e"], ["ou", "he", "i"], ["s", "o", "n"]][seed % 4]
        search, ends = BeamSearch(3, penalty, early), frozenset({7, 8} if seed % 2 else ())
        made, letters = function_of(seed, vocab, 2.0), np.isin(np.arange(vocab), tokenizer.encode("thesaouin"))

        def logits(tokens, made=made, letters=letters):
            return made(tokens) + 4 * letters.astype(np.float32)

        result = written_with(tokenizer, logits, search, 10, stop, ends)
        expected, forwards = theirs(
            OfFunction(logits, vocab), [5], 10, ends, search, tokenizer=of_theirs, stop_strings=stop
        )
        assert_same(result, expected, forwards)
        stopped += sum(
            each.finish_reason == "stop" and each.tokens[-1] not in ends for each in (result, *result.runners_up)
        )
    assert stopped > 5
