"""What encoders make of texts: vectors, ranks, labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastdistill.arguments import check_choice, check_flag, check_integer, check_text
from fastdistill.cached import cached_property
from fastdistill.encode.pooling import POOLINGS
from fastdistill.encode.settings import Dense, EncodeSettings, read_settings
from fastdistill.errors import ArgumentError, NotFiniteError, UnsupportedError
from fastdistill.kernels.forward.linear import linear
from fastdistill.messages import listed, short, warn
from fastdistill.models.plan import Plan
from fastdistill.runtime.encode import hidden_states, pooled
from fastdistill.runtime.network import Network
from fastdistill.text.tokenizer import Tokenizer

Progress = Callable[[int, int], None]
Text = str | tuple[str, str]  # a pair is read as one, its parts told apart


@dataclass(frozen=True)
class Ranked:
    """A document's place.

    Attributes
    ----------
    index : int
        its number in the list that was given
    score : float
        how well it fits the query
    text : str
        the document
    """

    index: int
    score: float
    text: str


@dataclass(frozen=True)
class Labels:
    """What a classifier says of a text.

    Attributes
    ----------
    label : str
        the one with the largest score
    score : float
        its score
    scores : dict[str, float]
        of all labels: probabilities, together 1 where a text has one label, each by itself where it may have several
    """

    label: str
    score: float
    scores: dict[str, float]


class TextEncoder:
    """Reads texts with a network and its tokenizer.

    Attributes
    ----------
    network : Network
        an encoder
    settings : EncodeSettings
        of its folder
    max_tokens : int
        of a text, special tokens included: longer ones are cut
    """

    def __init__(self, network: Network, folder: Path, tokenizer: Tokenizer) -> None:
        self.network, self._folder, self._tokenizer = network, folder, tokenizer
        self.settings: EncodeSettings = read_settings(folder)
        self.settings.width(network.plan.hidden_size)
        self.max_tokens: int = self.settings.most_tokens(network.plan.max_positions)

    def encode(
        self,
        texts: Sequence[str],
        *,
        batch_size: int | None = None,
        normalize_embeddings: bool | None = None,
        pooling: str | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """A vector of each text, float32 (texts, width); see `Model.encode`."""
        if batch_size is not None:
            check_integer("batch_size", batch_size, 1, 1 << 20)
        normalize = self.settings.normalize
        if normalize_embeddings is not None:
            normalize = check_flag("normalize_embeddings", normalize_embeddings) or normalize
        poolings = self.settings.poolings if pooling is None else (self._pooling(pooling),)
        prompt = self._prompt(prompt_name, prompt)
        skipped = 0 if self.settings.include_prompt else self._prompt_rows(prompt)
        tokens = self._read([prompt + text for text in texts])
        made = []
        for hidden in self._told(hidden_states(self.network, tokens, batch_size), len(texts), progress):
            begin = min(skipped, len(hidden) - 1)
            parts = [self._pooled(hidden) if name == "pooler" else POOLINGS[name](hidden, begin) for name in poolings]
            made.append(np.concatenate(parts))
        vectors = np.array(made, np.float32) if made else np.empty((0, self._width(poolings)), np.float32)
        if pooling is None:
            for dense in self.settings.dense:
                vectors = _through(dense, vectors)
        if truncate_dim is not None:
            vectors = np.ascontiguousarray(vectors[:, : check_integer("truncate_dim", truncate_dim, 1, 1 << 20)])
        return _normalized(_finite(vectors)) if normalize else _finite(vectors)

    def scores(
        self, texts: Sequence[Text], batch_size: int | None = None, progress: Progress | None = None
    ) -> np.ndarray:
        """What the classifier scores each text, or pair, by, float32 (texts, labels): as it gives them.

        Raises
        ------
        UnsupportedError
            where the model has no classifier
        """
        plan = self.network.plan
        if not plan.labels:
            raise UnsupportedError(
                f"this model ({plan.architecture}) has no classifier: it gives {listed(plan.outputs)}"
            )
        rows = [
            POOLINGS[plan.pooling](hidden)
            for hidden in self._told(hidden_states(self.network, self._read(texts), batch_size), len(texts), progress)
        ]
        if not rows:
            return np.empty((0, len(plan.labels)), np.float32)
        return _finite(pooled(self.network, np.array(rows, np.float32))["scores"])

    def classify(
        self, texts: Sequence[Text], batch_size: int | None = None, progress: Progress | None = None
    ) -> list[Labels]:
        """What the classifier says of each text; see `Model.classify`."""
        plan = self.network.plan
        scores = self.scores(texts, batch_size, progress).astype(np.float64)
        if (read_as := scored_as(plan)) == "sigmoid":
            scores = _sigmoid(scores)
        elif read_as == "softmax":
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores /= scores.sum(axis=1, keepdims=True)
        return [
            Labels(plan.labels[best], row[best], dict(zip(plan.labels, row, strict=True)))
            for best, row in zip(scores.argmax(axis=1).tolist(), scores.tolist(), strict=True)
        ]

    def rank(
        self, query: str, documents: Sequence[str], top_k: int | None, batch_size: int | None, progress: Progress | None
    ) -> list[Ranked]:
        """Documents by how well they fit a query, best first; see `Model.rank`."""
        if top_k is not None:
            check_integer("top_k", top_k, 1, 1 << 30)
        plan = self.network.plan
        if len(plan.labels) > 1:
            raise UnsupportedError(
                f"rank needs a model of vectors, or a classifier of pairs with one label; this one has {listed(plan.labels)}"
            )
        if plan.labels:
            found = self.scores([(query, each) for each in documents], batch_size, progress)[:, 0].astype(np.float64)
            scores = found if self._is_raw else _sigmoid(found)
        else:
            asked, answers = (name if name in self.settings.prompts else None for name in ("query", "document"))
            of_query = self.encode([query], prompt_name=asked, normalize_embeddings=True)
            vectors = self.encode(
                documents, batch_size=batch_size, prompt_name=answers, normalize_embeddings=True, progress=progress
            )
            scores = vectors.astype(np.float64) @ of_query[0].astype(np.float64)
        order = np.argsort(-scores, kind="stable")[:top_k].tolist()
        return [Ranked(i, float(scores[i]), documents[i]) for i in order]

    @cached_property
    def _is_raw(self) -> bool:
        """Whether a cross-encoder's folder asks for scores as they are, not between 0 and 1."""
        from fastdistill.checkpoint.config import read_config

        raw = read_config(self._folder / "config.json").raw
        newer = raw.get("sentence_transformers")
        named = (
            newer.get("activation_fn") if isinstance(newer, dict) else raw.get("sbert_ce_default_activation_function")
        )
        return isinstance(named, str) and named.endswith("Identity")

    def _read(self, texts: Sequence[Text]) -> list[np.ndarray]:
        """Tokens of each text, int32 (columns, n); what is longer than the model reads is cut, and said once."""
        columns, found, cut = self.network.plan.token_columns, [], 0
        for text in texts:
            ids, types, shorter = self._tokens(text)
            cut += shorter
            found.append(np.array([ids, types][:columns] if columns > 1 else [ids], np.int32))
        if cut:
            warn(
                f"{cut} of {len(texts)} texts are longer than the {self.max_tokens} tokens that the model reads: cut there"
            )
        return found

    def _tokens(self, text: Text) -> tuple[list[int], list[int], bool]:
        first, second = text if isinstance(text, tuple) else (text, None)
        if self.settings.lower_case:
            first, second = first.lower(), None if second is None else second.lower()
        ids, types, cut = self._tokenizer.encode_parts(first, second, self.max_tokens)
        if not ids:
            raise ArgumentError("the text is empty, and the tokenizer puts no special token around it")
        return ids, types, cut

    def _prompt(self, name: str | None, prompt: str | None) -> str:
        if prompt is not None:
            return check_text("prompt", prompt)
        known = self.settings.prompts
        name = self.settings.default_prompt if name is None else name
        if name is not None and (not isinstance(name, str) or name not in known):
            raise ArgumentError(
                f"prompt_name must be one of {listed(known) or 'none: this model has no prompts'}, got {short(name)}"
            )
        return "" if name is None else known[name]

    def _prompt_rows(self, prompt: str) -> int:
        """How many of a text's rows are the prompt's, special tokens before it included."""
        if not prompt:
            return 0
        ids, *_ = self._tokens(prompt)
        return len(ids) - (ids[-1] in self._tokenizer.special_ids)

    def _pooling(self, name: str) -> str:
        check_choice("pooling", name, [*POOLINGS, "pooler"])
        if name == "pooler" and not self.network.plan.pooling:
            raise UnsupportedError("this model's file holds no pooler: choose another pooling")
        return name

    def _pooled(self, rows: np.ndarray) -> np.ndarray:
        return pooled(self.network, POOLINGS[self.network.plan.pooling](rows)[None])["pooled"][0]

    def _width(self, poolings: tuple[str, ...]) -> int:
        return self.network.plan.hidden_size * len(poolings)

    @staticmethod
    def _told(hidden: Iterator[np.ndarray], count: int, progress: Progress | None) -> Iterator[np.ndarray]:
        for number, each in enumerate(hidden, 1):
            yield each
            if progress is not None:
                progress(number, count)


def scored_as(plan: Plan) -> str:
    """What makes scores of what a classifier gives: "softmax", "sigmoid", or "", where they stay as they are."""
    if plan.problem == "regression":
        return ""
    return "sigmoid" if plan.problem == "multi_label_classification" or len(plan.labels) == 1 else "softmax"


def _through(dense: Dense, vectors: np.ndarray) -> np.ndarray:
    made = linear(np.ascontiguousarray(vectors), "f32", dense.matrix, bias=dense.bias)
    return np.tanh(made) if dense.activation == "Tanh" else made


def _finite(found: np.ndarray) -> np.ndarray:
    """What was computed of each text, (texts, numbers), where all of it is finite."""
    finite = np.isfinite(found).all(axis=1)
    if not finite.all():
        raise NotFiniteError(f"text {finite.argmin()} has a vector or scores with a NaN or an infinity in them")
    return found


def _normalized(vectors: np.ndarray) -> np.ndarray:
    """Each over its length, which is summed in float64; zeros stay."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    return (vectors / np.maximum(lengths, 1e-12)[:, None]).astype(np.float32)


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-scores))
