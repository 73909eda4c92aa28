"""A GGUF file's tokenizer rebuilt: ids worked out by hand, and the tokens that end a text."""

from __future__ import annotations

import json
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.checkpoint.config import eos_token_ids
from fastdistill.checkpoint.folder import open_checkpoint
from fastdistill.text.tokenizer import Tokenizer
from tests.checkpoint.gguf_files import MERGES, SPELLING, TOKENS, TYPES, config_of, converted


def words_of_gpt2(text: str) -> list[str]:
    """GPT-2's splitting of a text, by hand: contractions, then [space] letters | digits | others, then spaces, of
    which the last goes to the word after."""

    def kind(char: str) -> str:
        category = unicodedata.category(char)[0]
        return "s" if char.isspace() and char not in "\x1c\x1d\x1e\x1f" else category if category in "LN" else "o"

    words, at = [], 0
    while at < len(text):
        for ending in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d"):
            if text.startswith(ending, at):
                end = at + len(ending)
                break
        else:
            start = at + (text[at] == " " and at + 1 < len(text) and kind(text[at + 1]) != "s")
            end = start + 1
            while end < len(text) and kind(text[end]) == kind(text[start]):
                end += 1
            if kind(text[start]) == "s" and end < len(text) and end - at > 1:
                end -= 1
        words.append(text[at:end])
        at = end
    return words


def ids_by_hand(text: str) -> list[int]:
    """The tokens of a text: numerals alone (Digits), the rest in GPT-2's words, each merged pair by pair."""
    ids, parts = [], []
    for char in text:
        alone = unicodedata.category(char)[0] == "N"
        if alone or not parts or parts[-1][1]:
            parts.append([char, alone])
        else:
            parts[-1][0] += char
    for part, _ in parts:
        for word in words_of_gpt2(part):
            symbols = [SPELLING[byte] for byte in word.encode()]
            while True:
                ranks = [
                    (MERGES.index(pair), i) for i, pair in enumerate(map(" ".join, pairwise(symbols))) if pair in MERGES
                ]
                if not ranks:
                    break
                i = min(ranks)[1]
                symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
            ids += [TOKENS.index(symbol) for symbol in symbols]
    return ids


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return Tokenizer(converted(tmp_path_factory.mktemp("gguf"))[1])


PARTS = ["the", " the", "  ", "   ", "12", "1", "'s", "'", "é", "日", "🙂", "\n\n", " \n", "\t", "!!", "²", "a"]
TEXTS = st.one_of(st.text(max_size=30), st.lists(st.sampled_from(PARTS), max_size=12).map("".join))


@given(text=TEXTS)
@settings(max_examples=400)
def test_ids_are_those_worked_out_by_hand(tokenizer, text):
    assert tokenizer.encode(text) == ids_by_hand(text)


def test_control_tokens_are_special_and_user_tokens_are_text(tokenizer):
    ids = tokenizer.encode("a<|start|>the<|user|>")
    assert ids[1] == 1 and ids[-1] == len(TOKENS) - 1 and tokenizer.special_ids == {0, 1}
    assert tokenizer.decode(ids) == "athe<|user|>"
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|start|>", "<|end|>")
    assert tokenizer.config.chat_template() == "{{ messages }}"


@pytest.mark.parametrize(
    ("metadata", "around"),
    [
        ({}, ([], [])),
        ({"tokenizer.ggml.add_bos_token": True}, ([1], [])),
        ({"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}, ([1], [0])),
        ({"tokenizer.ggml.pre": "llama-bpe"}, ([1], [])),
        ({"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": False}, ([], [])),
    ],
)
def test_bos_and_eos_are_added_as_the_file_says(tmp_path, metadata, around):
    tokenizer = Tokenizer(converted(tmp_path, metadata=metadata)[1])
    plain = tokenizer.encode("the", special=False)
    assert tokenizer.encode("the") == around[0] + plain + around[1]


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("smollm", "12", ["1", "2"]),
        ("gpt-2", "12", ["12"]),
        ("llama-bpe", "12", ["12"]),
        ("qwen2", "12", ["1", "2"]),
        ("gpt-2", " the", [" the"]),
        ("qwen2", "!\n\n", ["!", "\n\n"]),
        ("qwen2", "e\u0301", ["é"]),  # normalised to one character
        ("llama-bpe", "e\u0301", ["e", "\xcc", "\x81"]),
    ],
)
def test_pre_tokenizers_split_as_named(tmp_path, pre, text, pieces):
    tokenizer = Tokenizer(converted(tmp_path, metadata={"tokenizer.ggml.pre": pre})[1])
    found = [tokenizer.token_bytes(token) for token in tokenizer.encode(text, special=False)]
    assert found == [piece.encode("latin-1") if piece in ("\xcc", "\x81") else piece.encode() for piece in pieces]


def test_llama3_takes_whole_tokens_before_it_merges(tmp_path):
    # "inthe" is a token that no merges lead to: Llama 3's tokenizer finds it all the same.
    tokens = [*TOKENS[:-2], "inthe", TOKENS[-1]]
    merges = MERGES[:-1]
    for pre, count in {"llama-bpe": 1, "gpt-2": 2}.items():
        metadata = {"tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": merges}
        (tmp_path / pre).mkdir()
        tokenizer = Tokenizer(converted(tmp_path / pre, metadata=metadata)[1])
        assert len(tokenizer.encode("inthe", special=False)) == count


ALIASES = {
    "gpt-2": ["phi-2", "gigachat", "modern-bert", "exaone4", "mpt", "olmo", "a.x-4.0"],
    "smollm": ["starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
    "llama-bpe": ["llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
    "qwen2": ["deepseek-r1-qwen", "megrez", "kormo", "stablelm2"],
}


@pytest.mark.parametrize(("known", "alias"), [(known, alias) for known, names in ALIASES.items() for alias in names])
def test_other_names_mean_the_same_tokenizer(tmp_path, known, alias):
    """But for qwen2's own NFC: of the others nobody says that they normalise."""
    made = []
    for name in (known, alias):
        (tmp_path / name).mkdir()
        folder = converted(tmp_path / name, metadata={"tokenizer.ggml.pre": name})[1]
        tokenizer, config = (
            json.loads((folder / file).read_text()) for file in ("tokenizer.json", "tokenizer_config.json")
        )
        assert tokenizer.pop("normalizer") == ({"type": "NFC"} if name == "qwen2" else None)
        made.append((tokenizer, config))
    assert made[0] == made[1]


def ends_of(tmp_path, controls=(), others=(), **metadata):
    """The tokens that end a text, of a file with these control tokens and these other ones."""
    added = [*controls, *others]
    tokens, types = [*TOKENS[: len(TOKENS) - len(added)], *added], TYPES[: len(TYPES) - len(added)]
    merges = [merge for merge in MERGES if merge.replace(" ", "") in tokens]
    settings = {
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types + [3] * len(controls) + [4] * len(others),
        "tokenizer.ggml.merges": merges, **{f"tokenizer.ggml.{key}_token_id": index for key, index in metadata.items()},
    }  # fmt: skip
    folder = converted(tmp_path, metadata=settings)[1]
    assert config_of(folder)["eos_token_id"] == 0
    with open_checkpoint(folder) as checkpoint:
        ends = eos_token_ids(checkpoint.config, checkpoint.generation_config)
    found = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert found == sorted(ends)
    return [tokens[index] for index in found]


@pytest.mark.parametrize("key", ["eot", "eom", "fim_pad", "fim_rep", "fim_sep"])
def test_what_ends_a_turn_a_message_or_a_file_ends_a_text(tmp_path, key):
    assert ends_of(tmp_path, **{key: 1}) == ["<|end|>", "<|start|>"]


@pytest.mark.parametrize(
    ("controls", "others", "ends"),
    [
        (["<|eot_id|>", "<|eom_id|>", "<|im_end|>"], [], ["<|eot_id|>", "<|eom_id|>", "<|im_end|>"]),
        (["<|im_start|>", "<end_of_turn>", "</s>"], ["<|endoftext|>"], ["<end_of_turn>", "</s>"]),
        (["<|return|>", "<|call|>"], [], ["<|return|>", "<|call|>"]),
        (["</s>", "<|tool_response>"], [], ["<|tool_response>"]),
        (["</s>"], ["<|tool_response>"], ["</s>"]),
        (["<|file_sep|>", "<reponame>", "<file_sep>"], [], ["<|file_sep|>", "<reponame>"]),
    ],
)
def test_control_tokens_end_a_text_by_their_names(tmp_path, controls, others, ends):
    """The file's own <|end|> is its eos."""
    assert ends_of(tmp_path, controls, others) == ["<|end|>", *ends]


def test_the_end_of_a_part_is_no_end(tmp_path):
    assert ends_of(tmp_path, ["<|return|>", "<|call|>", "<|flush|>"], eos=0) == [
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
    ]
    (tmp_path / "harmony").mkdir()
    tokens = [*TOKENS[:-2], "<|return|>", "<|call|>"]
    settings = {
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [3, 3] + [1] * (len(tokens) - 4) + [3, 3],
        "tokenizer.ggml.merges": MERGES[:-1], "tokenizer.ggml.eos_token_id": len(tokens) - 2,
    }  # fmt: skip
    folder = converted(tmp_path / "harmony", metadata=settings)[1]
    found = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert [tokens[index] for index in found] == ["<|return|>", "<|call|>"]  # and not <|end|>
