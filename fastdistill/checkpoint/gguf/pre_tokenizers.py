"""The pre-tokenizers of byte-level BPE: which regular expressions cut a text, by the name that a GGUF file has for them.

The names are llama.cpp's (`tokenizer.ggml.pre`). Each expression cuts the pieces that the one before has left, into its
matches and what lies between them. They are those of the models' own tokenizers where these are published, which also
tell the case of letters beyond ASCII; else those of llama.cpp.
"""

from __future__ import annotations

from typing import Any, NamedTuple

_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_NEWLINES = r"\s*[\r\n]+"
_SPACES = r"\s+(?!\S)|\s+"
_THREE_DIGITS = r"\p{N}{1,3}"
_DIGIT = r"\p{N}"

_GPT_2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_SPACES}"


def _words(digits: str, endings: str = _ENDINGS + "|", letters: str = r"\p{L}+", spaces: str = _SPACES) -> str:
    """Llama 3's and Qwen 2's, and what others have changed in it."""
    return rf"{endings}[^\r\n\p{{L}}\p{{N}}]?{letters}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_NEWLINES}|{spaces}"


def _cased(
    digits: str, endings: str = _ENDINGS + "?", marks: str = r"\p{M}", first: str = "", behind: str = r"[\r\n/]*"
) -> str:
    """GPT-4o's: a word's capitals, then its small letters."""
    capitals, smalls = rf"[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}{marks}]", rf"[\p{{Ll}}\p{{Lm}}\p{{Lo}}{marks}]"
    before = r"[^\r\n\p{L}\p{N}]?"
    return (
        rf"{first}{before}{capitals}*{smalls}+{endings}|{before}{capitals}+{smalls}*{endings}|{digits}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+{behind}|{_NEWLINES}|{_SPACES}"
    )


_PUNCTUATION = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
_DEEPSEEK_3 = rf"{_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_NEWLINES}|{_SPACES}"
_CHINESE_JAPANESE = "[一-龥぀-ゟ゠-ヿ]+"
_CHINESE_KOREAN = "[一-龥ࠀ-一가-퟿]+"
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
# Groups of three digits, counted from the last one of the number.
_DIGITS_FROM_THE_END = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
_NOT_HAN = r"&&[^\p{Han}]"
_DEEPSEEK_LETTERS = (
    r"A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ"
    r"-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ"
    r"-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)


class PreTokenizer(NamedTuple):
    """What cuts a text, and what goes with it in llama.cpp.

    Attributes
    ----------
    splits : tuple[str, ...]
        regular expressions, in turn
    whole_words : bool
        a piece that is a token stays one, whatever merges would make of it
    begins : bool
        a text begins with bos where the file does not say
    bytes : bool
        tokens are spelt in bytes; else in characters, a space as "▁"
    """

    splits: tuple[str, ...]
    whole_words: bool = False
    begins: bool = False
    bytes: bool = True


_TABLE: dict[tuple[str, ...], PreTokenizer] = {
    ("default",): PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT_2, r"\p{N}+", "[0-9][0-9][0-9]")),
    (
        "gpt-2",
        "phi-2",
        "jina-es",
        "jina-de",
        "jina-v2-es",
        "jina-v2-de",
        "jina-v1-en",
        "jina-v2-code",
        "roberta-bpe",
        "gigachat",
        "a.x-4.0",
        "mellum",
        "modern-bert",
        "exaone4",
        "mpt",
        "olmo",
        "jais",
        "trillion",
        "granite-docling",
    ): PreTokenizer((_GPT_2,)),
    ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"): PreTokenizer(
        (_DIGIT, _GPT_2)
    ),
    (
        "llama-bpe",
        "llama3",
        "llama-v3",
        "falcon3",
        "falcon-h1",
        "pixtral",
        "midm-2.0",
        "lfm2",
        "jina-v5-nano",
    ): PreTokenizer((_words(_THREE_DIGITS),), whole_words=True, begins=True),
    ("dbrx", "smaug-bpe", "chatglm-bpe"): PreTokenizer((_words(_THREE_DIGITS),)),
    ("glm4", "glm5"): PreTokenizer((_words(_THREE_DIGITS),), whole_words=True),
    ("minicpm5",): PreTokenizer((_THREE_DIGITS, _words(r"\p{N}+")), whole_words=True),
    ("jais-2",): PreTokenizer(
        (
            _words(
                _THREE_DIGITS,
                spaces="|".join(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4, "1,2")) + r"|\s{1}",
            ),
        )
    ),
    (
        "qwen2",
        "deepseek-r1-qwen",
        "kormo",
        "f2llmv2",
        "megrez",
        "stablelm2",
        "hunyuan",
        "solar-open",
        "grok-2",
    ): PreTokenizer((_words(_DIGIT),)),
    ("qwen35",): PreTokenizer((_words(_DIGIT, letters=r"[\p{L}\p{M}]+").replace(r" ?[^\s\p{L}", r" ?[^\s\p{L}\p{M}"),)),
    ("ufakzeka",): PreTokenizer((_words(_DIGIT, endings=""),)),
    ("laguna",): PreTokenizer((r"[^\n]+|[\n]+", _words(_DIGIT))),
    ("seed-coder",): PreTokenizer(
        (rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_NEWLINES}|{_SPACES}",)
    ),
    ("bailingmoe", "bailingmoe2", "llada-moe"): PreTokenizer(
        (
            rf"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{{L}}\p{{N}}]?+\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]++[\r\n]*|\s*[\r\n]|{_SPACES}",
        )
    ),
    # A word's letters may go on behind a space.
    ("exaone-moe",): PreTokenizer(
        (
            rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}(?: ?\p{{L}}|\p{{M}})*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|{_SPACES}",
        )
    ),
    ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"): PreTokenizer((_cased(_THREE_DIGITS),)),
    ("granite-embed-multi-97m",): PreTokenizer((_cased(_THREE_DIGITS),), whole_words=True),
    ("tiny_aya", "cohere2moe"): PreTokenizer((r"\d{1,3}(?=(?:\d{3})*\b)", _cased(_THREE_DIGITS))),
    ("tekken",): PreTokenizer((_cased(_DIGIT, endings=""),), whole_words=True, begins=True),
    ("kimi-k2",): PreTokenizer(
        (_cased(_THREE_DIGITS, marks=rf"\p{{M}}{_NOT_HAN}", first=r"[\p{Han}]+|", behind=r"[\r\n]*"),)
    ),
    ("youtu",): PreTokenizer(
        (r"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+", _cased(_DIGIT)), whole_words=True
    ),
    ("deepseek-llm",): PreTokenizer(
        (
            r"[\r\n]",
            rf"\s?[{_DEEPSEEK_LETTERS}]+",
            r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
            r"\s+$",
            _CHINESE_KOREAN,
            r"\p{N}+",
        )
    ),
    ("deepseek-coder",): PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CHINESE_KOREAN, _DIGIT)),
    ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"): PreTokenizer(
        (_THREE_DIGITS, _CHINESE_JAPANESE, _DEEPSEEK_3)
    ),
    ("spark2_5",): PreTokenizer(
        (_THREE_DIGITS, _CHINESE_JAPANESE, _DEEPSEEK_3.replace(rf"[\r\n]*|{_NEWLINES}", r"|[\r\n]"), _DIGIT)
    ),
    ("afmoe",): PreTokenizer(
        (
            _DIGITS_FROM_THE_END,
            "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+",
            _DEEPSEEK_3,
        )
    ),
    ("falcon",): PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT_2, "[0-9][0-9][0-9]")),
    ("poro-chat", "bloom", "gpt3-finnish"): PreTokenizer((_BLOOM,)),
    ("viking",): PreTokenizer((_BLOOM, _DIGIT)),
    ("superbpe",): PreTokenizer((r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
    ("chameleon",): PreTokenizer(
        (
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            _DIGIT,
            r"[\p{P}!-/:-@\[-`{-~]",
            _GPT_2,
        ),
        begins=True,
    ),
    ("gemma4", "granite-embed-multi-311m", "sarvam-moe"): PreTokenizer((r"[^\n]+|[\n]+",), bytes=False),
}

PRE_TOKENIZERS = {name: pre_tokenizer for names, pre_tokenizer in _TABLE.items() for name in names}


def splitting(pre_tokenizer: PreTokenizer) -> dict[str, Any]:
    """It as tokenizer.json has it."""
    steps: list[dict[str, Any]] = [
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
        for regex in pre_tokenizer.splits
    ]
    return {"type": "Sequence", "pretokenizers": steps + ([byte_level()] if pre_tokenizer.bytes else [])}


def byte_level() -> dict[str, Any]:
    """A text's bytes, spelt; and the way back."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
