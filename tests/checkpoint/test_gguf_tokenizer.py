"""A GGUF file's tokenizer rebuilt: ids worked out by hand, and the tokens that end a text."""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as HfTokenizer

from fastdistill.checkpoint.config import eos_token_ids
from fastdistill.checkpoint.folder import open_checkpoint
from fastdistill.checkpoint.gguf.pre_tokenizers import PRE_TOKENIZERS
from fastdistill.checkpoint.gguf.reader import GgufFile
from fastdistill.checkpoint.gguf.tokenizer import special_ids, tokenizer_files
from fastdistill.text.bounds import check_tokenizer
from fastdistill.text.tokenizer import Tokenizer
from tests.checkpoint.gguf_files import MERGES, SPELLING, TOKENS, TYPES, config_of, converted
from tests.checkpoint.gguf_tokenizers import (
    BYTES,
    TEXTS,
    byte_pairs,
    corpus,
    made,
    sentence_pieces,
    word_pieces,
    write_vocabulary,
)  # fmt: skip


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
WORDS = st.one_of(st.text(max_size=30), st.lists(st.sampled_from(PARTS), max_size=12).map("".join))


@given(text=WORDS)
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


# Names that mean the same, in all but what the table says beside the splitting.
ALIASES = {
    "gpt-2": ["phi-2", "gigachat", "modern-bert", "exaone4", "mpt", "olmo", "a.x-4.0"],
    "smollm": ["starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
    "llama-bpe": ["llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
    "qwen2": ["deepseek-r1-qwen", "megrez", "kormo", "stablelm2", "hunyuan", "solar-open", "grok-2"],
    "bailingmoe": ["bailingmoe2", "llada-moe"],
    "gpt-4o": ["llama4", "kanana2", "minimax-m2"],
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


def test_named_templates_keep_their_names(tmp_path):
    metadata = {"tokenizer.chat_templates": ["tool_use"], "tokenizer.chat_template.tool_use": "{{ tools }}"}
    tokenizer = Tokenizer(converted(tmp_path, metadata=metadata)[1])
    assert tokenizer.config.chat_templates == {"default": "{{ messages }}", "tool_use": "{{ tools }}"}


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


# ---- against the models' own tokenizers ----


# What some models' tokenizer.json has, by the name that a GGUF file gives it.
PUBLISHED = {
    "llama-bpe": [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
    "qwen2": [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
    "qwen35": [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
    "gpt-4o": [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
    "tekken": [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
    "exaone-moe": [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
    ],
    "deepseek-v3": [
        r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"""
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    ],
    "superbpe": [r"\p{N}+", r"(?=(\d{3})+(?!\d))"],
}  # fmt: skip


@pytest.fixture(scope="module")
def pairs():
    return byte_pairs()


@pytest.fixture(scope="module")
def splittings(pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("splittings")
    return {name: made(folder / name, pairs | {"tokenizer.ggml.pre": name}) for name in (*PUBLISHED, "gpt-2", "smollm")}


@given(name=st.sampled_from(sorted(PUBLISHED)), text=TEXTS)
@settings(max_examples=400, deadline=None)
def test_texts_are_cut_as_models_publish_it(splittings, name, text):
    steps = [pre_tokenizers.Split(Regex(regex), "isolated") for regex in PUBLISHED[name]]
    published = pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    assert splittings[name].pre_tokenizer.pre_tokenize_str(text) == published.pre_tokenize_str(text)


@given(text=TEXTS)
@settings(max_examples=200, deadline=None)
def test_texts_are_cut_as_gpt2_and_smollm_do(splittings, text):
    gpt_2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    smollm = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt_2])
    for name, own in {"gpt-2": gpt_2, "smollm": smollm}.items():
        assert splittings[name].pre_tokenizer.pre_tokenize_str(text) == own.pre_tokenize_str(text)


@pytest.mark.parametrize("name", sorted(PRE_TOKENIZERS))
def test_every_pre_tokenizer_is_within_bounds_and_loses_nothing(tmp_path, pairs, name):
    """Its patterns cost what a tokenizer may; the text comes back, whatever the tokens lie across."""
    characters = not PRE_TOKENIZERS[name].bytes
    metadata = byte_pairs(in_bytes=False) if characters else pairs
    write_vocabulary(tmp_path / "model.gguf", metadata | {"tokenizer.ggml.pre": name})
    with GgufFile(tmp_path / "model.gguf") as file:
        data = tokenizer_files(file)["tokenizer.json"]
    check_tokenizer(data, name)
    tokenizer = HfTokenizer.from_str(data.decode())
    for text in corpus()[:100]:
        whole = (
            text.replace("▁", " ") if characters else unicodedata.normalize("NFC", text) if name == "qwen2" else text
        )
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == whole


def pieces_by_hand(metadata, text: str, prefix: bool) -> list[str]:
    """SentencePiece's BPE: the neighbours with the best token between them merge, the left ones of equals first."""
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    scores = {
        token: score
        for token, score, kind in zip(tokens, metadata["tokenizer.ggml.scores"], kinds, strict=True)
        if kind == 1
    }
    added = [token for token, kind in zip(tokens, kinds, strict=True) if kind in (2, 3, 4)]
    pieces = []
    for part in re.split("(" + "|".join(map(re.escape, added)) + ")", text):
        if part in added:
            pieces.append(part)
            continue
        symbols = list(("▁" if prefix and part else "") + part.replace(" ", "▁"))
        while found := [(-scores[a + b], i) for i, (a, b) in enumerate(pairwise(symbols)) if a + b in scores]:
            i = min(found)[1]
            symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
        for symbol in symbols:
            pieces += [symbol] if symbol in scores else [f"<0x{byte:02X}>" for byte in symbol.encode()]
    return pieces


@pytest.fixture(scope="module")
def sentence_piece(tmp_path_factory):
    folder, metadata = tmp_path_factory.mktemp("pieces"), sentence_pieces()
    prefixed = {prefix: metadata | {"tokenizer.ggml.add_space_prefix": prefix} for prefix in (True, False)}
    return metadata, {prefix: made(folder / str(prefix), each) for prefix, each in prefixed.items()}


@given(text=TEXTS, prefix=st.booleans())
@settings(max_examples=300, deadline=None)
def test_sentence_pieces_are_those_worked_out_by_hand(sentence_piece, text, prefix):
    metadata, tokenizers = sentence_piece
    tokenizer = tokenizers[prefix]
    found = tokenizer.encode(text)
    assert found.tokens == ["<s>", *pieces_by_hand(metadata, text, prefix)]
    if not prefix or "ab cd" not in text:  # behind which a prefix stands too
        assert tokenizer.decode(found.ids) == text.replace("▁", " ")


def test_a_bytes_name_is_text(tmp_path):
    """Though pieces that lead to it are there."""
    metadata = sentence_pieces() | {"tokenizer.ggml.add_space_prefix": False}
    more = [token for token in ("0", "<0", "<0x", "<0x0", "<0x0A") if token not in metadata["tokenizer.ggml.tokens"]]
    for key, values in {"tokens": more, "token_type": [1] * len(more), "scores": [-9999.0] * len(more)}.items():
        metadata[f"tokenizer.ggml.{key}"] = metadata[f"tokenizer.ggml.{key}"] + values
    assert made(tmp_path / "model.gguf", metadata).encode("<0x0A>").tokens == ["<s>", "<0x0A", ">"]


@pytest.mark.parametrize("lowercase", [True, False])
def test_word_pieces_are_berts(tmp_path, lowercase):
    own, metadata = word_pieces(lowercase)
    tokenizer = made(tmp_path / "model.gguf", metadata)

    @given(text=TEXTS)
    @settings(max_examples=200, deadline=None)
    def check(text):
        assert tokenizer.encode(text).tokens == ["[CLS]", *own.encode(text).tokens, "[SEP]"]

    check()


def unigram_metadata(byte_fallback: bool) -> tuple[HfTokenizer, dict]:
    own = HfTokenizer(models.Unigram())
    own.normalizer = normalizers.Replace(" ", "▁")
    special = ["<pad>", "</s>", "<unk>", *(BYTES if byte_fallback else [])]
    trainer = trainers.UnigramTrainer(
        vocab_size=500 + len(special), special_tokens=special, unk_token="<unk>", show_progress=False
    )
    own.train_from_iterator(corpus(), trainer)
    model = json.loads(own.to_str())["model"]
    own.model = models.Unigram([tuple(piece) for piece in model["vocab"]], model["unk_id"], byte_fallback)
    return own, {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.tokens": [token for token, _ in model["vocab"]],
        "tokenizer.ggml.scores": [score for _, score in model["vocab"]],
        "tokenizer.ggml.token_type": [3, 3, 2] + [6] * 256 * byte_fallback + [1] * (len(model["vocab"]) - len(special)),
        "tokenizer.ggml.merges": None, "tokenizer.ggml.bos_token_id": None, "tokenizer.ggml.eos_token_id": 1,
    }  # fmt: skip


@pytest.mark.parametrize("byte_fallback", [True, False])
def test_unigram_pieces_are_those_of_the_trained_one(tmp_path, byte_fallback):
    own, metadata = unigram_metadata(byte_fallback)
    tokenizer = made(tmp_path / "model.gguf", metadata)

    @given(text=TEXTS)
    @settings(max_examples=200, deadline=None)
    def check(text):
        assert tokenizer.encode(text).tokens == [*own.encode(text).tokens, "</s>"]

    check()


def test_unigram_spaces_and_tables_are_as_the_file_says(tmp_path):
    _, metadata = unigram_metadata(False)
    spaces = {"tokenizer.ggml.add_space_prefix": True, "tokenizer.ggml.remove_extra_whitespaces": True}
    tokenizer = made(tmp_path / "a", metadata | spaces)
    assert tokenizer.normalizer.normalize_str("  the   ab ") == "▁the▁ab"
    assert tokenizer.normalizer.normalize_str("  ") == ""
    assert tokenizer.decode(tokenizer.encode("the ab").ids) == "the ab"
    table = (8).to_bytes(4, "little") + bytes(8) + b"x\0"  # a trie without an entry, and a string
    tokenizer = made(tmp_path / "b", metadata | {"tokenizer.ggml.precompiled_charsmap": table})
    steps = json.loads(tokenizer.to_str())["normalizer"]["normalizers"]
    assert base64.b64decode(steps[0]["precompiled_charsmap"]) == table


def test_ids_that_a_file_need_not_name(tmp_path):
    metadata = sentence_pieces() | {f"tokenizer.ggml.{key}_token_id": None for key in ("bos", "eos", "unknown")}
    write_vocabulary(tmp_path / "model.gguf", metadata)
    with GgufFile(tmp_path / "model.gguf") as file:
        config = json.loads(tokenizer_files(file)["tokenizer_config.json"])
        assert special_ids(file) == {"bos_token_id": 1, "eos_token_id": 2}
    assert (config["bos_token"], config["eos_token"], config["unk_token"]) == ("<s>", "</s>", "<unk>")


def test_phi_3s_tokens_take_the_space_behind_them(tmp_path):
    metadata = sentence_pieces()
    index = metadata["tokenizer.ggml.tokens"].index("ab cd")
    for name, text in {"Phi-3 Mini": "ab cd  the", "Other": "ab cdthe"}.items():
        tokenizer = made(tmp_path / name, metadata | {"general.name": name})
        assert tokenizer.encode(text).ids == [1, index, *tokenizer.encode("the").ids[1:]]
