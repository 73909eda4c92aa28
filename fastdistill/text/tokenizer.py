"""The tokenizer of a model folder.

tokenizer.json is run by the package `tokenizers`, which is imported when a Tokenizer is made and not before: it brings
sixteen packages along, and a model works on token ids without it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastdistill.arguments import check_flag, check_integer, check_path, check_text
from fastdistill.cached import cached_property
from fastdistill.errors import ArgumentError, TextError
from fastdistill.files import read_file
from fastdistill.messages import listed, short
from fastdistill.text.bounds import check_model, check_tokenizer
from fastdistill.text.byte_spans import byte_spans, speller, without_blank
from fastdistill.text.tokenizer_config import TokenizerConfig

if TYPE_CHECKING:
    import numpy as np
    import tokenizers

# Settings of a model that make it cut words by chance: BPE's dropout, Unigram's sampling.
_CHANCES = ("dropout", "alpha", "nbest_size")


def reads_text(folder: str | os.PathLike[str]) -> bool:
    """Whether token ids of this folder's model can be shown as text here: it has a tokenizer, and the package that runs it is there."""
    if not os.path.lexists(check_path("folder", folder) / "tokenizer.json"):
        return False
    from importlib.util import find_spec

    return find_spec("tokenizers") is not None


class Tokenizer:
    """Text to token ids and back, as the folder's tokenizer.json says.

    Attributes
    ----------
    folder
        holds tokenizer.json, and where the model has them what `TokenizerConfig` reads
    vocab_size : int
        tokens, added ones included
    special_ids
        the tokens that mark something and are no text

    Raises
    ------
    TextError
        where a file is missing or malformed, or the package `tokenizers` is not there; any text that is a str can be
        encoded
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = check_path("folder", folder)
        self._path = self.folder / "tokenizer.json"
        if not os.path.lexists(self._path):
            raise TextError(f"{self._path} is missing: text needs it, token ids do not")
        try:
            import tokenizers
        except ImportError as error:
            raise TextError(
                f"text needs the package tokenizers, token ids do not ({error}): pip install tokenizers"
            ) from None
        data = read_file(self._path, error=TextError)
        check_tokenizer(data, str(self._path))
        with self._guarded("is not a tokenizer"):
            self._tokenizer = tokenizers.Tokenizer.from_buffer(data)
            check_model(self._tokenizer, data, str(self._path))
            self._tokenizer.no_truncation()  # what a training run cut or padded to is no part of the text
            self._tokenizer.no_padding()
            for chance in _CHANCES:  # nor is what it drew
                if hasattr(self._tokenizer.model, chance):
                    setattr(self._tokenizer.model, chance, None)
            self._tokenizer.encode("")  # a post-processor that names a token it lacks fails here, not later
            added = self._tokenizer.get_added_tokens_decoder()
            self.vocab_size: int = self._tokenizer.get_vocab_size()
        self.special_ids = frozenset(token for token, info in added.items() if info.special)
        self._byte_level = isinstance(self._tokenizer.decoder, tokenizers.decoders.ByteLevel)

    @property
    def json(self) -> str:
        """What tokenizer.json holds of it, without cutting and padding."""
        return str(self._tokenizer.to_str())

    def encode(self, text: str, special: bool = True) -> list[int]:
        """The ids of a text; a special token's name in it becomes that token.

        Parameters
        ----------
        text : str
        special : bool, default True
            whether the post-processor adds its own (a begin-of-text token, say); a rendered chat has them

        Raises
        ------
        ArgumentError
            for words that would silently become another token, such as the one that pads
        """
        ids: list[int] = self._encoding(text, special).ids
        return ids

    def encode_parts(self, text: str, other: str | None, most: int) -> tuple[list[int], list[int], bool]:
        """The ids of a text, or of a pair of texts as one, special tokens included; what is longer than `most` is cut.

        Parameters
        ----------
        text : str
        other : str | None
            the second text of a pair; the longer one is cut first, as `tokenizers` has it
        most : int
            ids, at most

        Returns
        -------
        tuple[list[int], list[int], bool]
            the ids; of each the part that it belongs to, 0 or 1, as the post-processor says; and whether anything was cut

        Raises
        ------
        ArgumentError
            as `encode`; where `most` leaves no room beside the special tokens
        """
        parts = [self._encoding(each, special=False) for each in (text, other) if each is not None]
        room = check_integer("most", most, 1, 1 << 30) - self._tokenizer.num_special_tokens_to_add(other is not None)
        if room < 1:
            raise ArgumentError(f"{most} tokens leave no room for text: {most - room} of them are special ones")
        lengths = _shortened([len(part) for part in parts], room)
        cut = [len(part) for part in parts] != lengths
        for part, length in zip(parts, lengths, strict=True) if cut else ():
            part.truncate(length)
        with self._guarded("cannot encode this text"):
            encoding = self._tokenizer.post_process(parts[0], parts[1] if other is not None else None)
        return encoding.ids, encoding.type_ids, cut

    def byte_spans(self, text: str, special: bool = True) -> tuple[list[int], np.ndarray]:
        """The ids of a text, as `encode` gives them, and where each token lies in the text's UTF-8 bytes.

        What tokens of different tokenizers have in common: `fastdistill.distill.align_bytes` pairs them by it.

        Parameters
        ----------
        text : str
        special : bool, default True
            whether the post-processor adds its own

        Returns
        -------
        tuple[list[int], np.ndarray]
            the ids, and int32 (n, 2): begin and end of each token, in order and not overlapping. The tokens of byte-level
            BPE fill the text, also where they split a character. Elsewhere bytes that the tokenizer drops lie in no
            token; a token that the post-processor has added, or whose bytes the text does not have, is empty.

        Raises
        ------
        ArgumentError
            as `encode`
        """
        import numpy as np

        encoding = self._encoding(text, special)
        model, added = self._tokenizer.model, self._tokenizer.get_added_tokens_decoder()
        spelt = speller(
            getattr(model, "continuing_subword_prefix", None),
            getattr(model, "end_of_word_suffix", None),
            bool(getattr(model, "byte_fallback", False)),
        )
        changed = self._tokenizer.normalizer is not None
        spellings: list[list[bytes]] = []
        begins = True
        for id, token, marked in zip(encoding.ids, encoding.tokens, encoding.special_tokens_mask, strict=True):
            known = self.token_bytes(id) if self._byte_level else None
            spellings.append([] if marked else spelt(token) if known is None else [known])
            if begins:
                spellings[-1] = without_blank(spellings[-1])
            begins = bool(marked) or id in added
        believed = [
            changed or id in added or token == getattr(model, "unk_token", None)
            for id, token in zip(encoding.ids, encoding.tokens, strict=True)
        ]
        spans = byte_spans(text, encoding.offsets, spellings, believed)
        return encoding.ids, np.array(spans, np.int32).reshape(-1, 2)

    def _encoding(self, text: str, special: bool) -> tokenizers.Encoding:
        """What `tokenizers` makes of a text; words that it lacks are refused."""
        check_text("text", text)
        check_flag("special", special)
        with self._guarded("cannot encode this text"):
            encoding = self._tokenizer.encode(text, add_special_tokens=special)
        if self._unknown is not None:
            at = [place for place, id in zip(encoding.offsets, encoding.ids, strict=True) if id == self._unknown[0]]
            words = dict.fromkeys(text[begin:end] for begin, end in at if text[begin:end] not in ("", self._unknown[1]))
            if words:
                raise ArgumentError(f"the tokenizer has no token for {listed(map(short, words))}")
        return encoding

    @cached_property
    def _unknown(self) -> tuple[int, str] | None:
        """The token that words it lacks become, where that is no token for such words: one that has another name alone."""
        token: str | None = getattr(self._tokenizer.model, "unk_token", None)
        names = {name for name, spelt in self.config.special_tokens.items() if spelt == token}
        if token is None or not names or "unk_token" in names or (id := self._tokenizer.token_to_id(token)) is None:
            return None
        return id, token

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD, ids without a token nothing."""
        if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable) or getattr(ids, "ndim", 1) != 1:
            raise ArgumentError(f"ids must be token ids in a row, got {short(ids)}")
        if isinstance(ids, range) and ids:
            check_token(ids[-1])  # before a walk through as many as there may be
        checked = [check_token(token) for token in ids]
        check_flag("skip_special", skip_special)
        with self._guarded("cannot decode these ids"):
            return self._tokenizer.decode(checked, skip_special_tokens=skip_special)

    def token(self, id: int) -> str | None:
        """How the vocabulary spells a token, or None where it has none of that id."""
        return self._tokenizer.id_to_token(check_token(id))

    def token_id(self, token: str) -> int | None:
        """The id of a token spelt as in the vocabulary, or None."""
        return self._tokenizer.token_to_id(check_text("token", token))

    def token_bytes(self, id: int) -> bytes | None:
        """The bytes that a token stands for, where every token stands for bytes: byte-level BPE. None elsewhere."""
        token = self.token(id) if self._byte_level else None
        if token is None:
            return None
        try:
            return bytes(map(_BYTES.__getitem__, token))
        except KeyError:  # an added token, spelt as itself
            return token.encode()

    @property
    def byte_level(self) -> bool:
        """Whether a text's bytes are its tokens' bytes in a row."""
        return self._byte_level

    @cached_property
    def config(self) -> TokenizerConfig:
        """The names of special tokens, and the chat templates."""
        return TokenizerConfig(self.folder)

    @property
    def bos_token(self) -> str | None:
        """The token that begins a text, as it is spelt; None where the folder names none."""
        return self._named("bos_token")

    @property
    def eos_token(self) -> str | None:
        """The token that ends a text."""
        return self._named("eos_token")

    def _named(self, name: str) -> str | None:
        token = self.config.special_tokens.get(name)
        return token if isinstance(token, str) else None

    @contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """Whatever `tokenizers` raises, its panics included (no Exception, so nothing else catches them)."""
        try:
            yield
        except TextError:
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise TextError(f"{self._path}: {what}: {' '.join(str(error).split())[:300]}") from error


def _shortened(lengths: list[int], room: int) -> list[int]:
    """The lengths of one text or two that together have so much room: the longer one gives way first."""
    if sum(lengths) <= room:
        return lengths
    if len(lengths) == 1:
        return [room]
    short, long = sorted(lengths)
    short, long = (room // 2, room - room // 2) if short > room // 2 else (short, room - short)
    return [short, long] if lengths[0] <= lengths[1] else [long, short]


def check_token(token: int) -> int:
    """A token id as an int of 32 bits.

    Raises
    ------
    ArgumentError
    """
    return check_integer("a token id", token, 0, (1 << 32) - 1)


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable Latin-1 as itself, the other 68 from U+0100 on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_alphabet()
