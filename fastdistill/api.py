"""load, Model: a folder becomes something that writes text."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload
from zlib import crc32

import numpy as np

from fastdistill import __version__
from fastdistill.arguments import check_flag, check_integer, check_integers, check_number, check_text
from fastdistill.cached import cached_property
from fastdistill.checkpoint import Target, eos_token_ids, open_checkpoint, target_of
from fastdistill.checkpoint.config import Section, said_of_texts
from fastdistill.decode.beam_search import BeamSearch
from fastdistill.decode.costs import (
    THREAD_POSITIONS,
    Costs,
    fastest_threads,
    kept_costs,
    measure_costs,
    read_costs,
    thread_counts,
)
from fastdistill.decode.engine import Engine, Task, write
from fastdistill.decode.generation import Generation, Piece, unless_failed
from fastdistill.errors import ArgumentError, CapacityError, UnsupportedError, attempt
from fastdistill.fetch import find_folder
from fastdistill.kernels import isa
from fastdistill.kernels.boundary import lib
from fastdistill.messages import short, warn
from fastdistill.models import Plan, plan_of
from fastdistill.options import FillOptions, Options, resolved, signed
from fastdistill.platform import processor
from fastdistill.runtime.network import Network
from fastdistill.runtime.packing import PackedWeights
from fastdistill.runtime.read import Read
from fastdistill.runtime.session import Session
from fastdistill.runtime.source import check_source
from fastdistill.tasks import Reading, asked_decoder, encoded, fill_task, search_of, task
from fastdistill.text.chat import is_conversation, render_chat
from fastdistill.text.tokenizer import Tokenizer, reads_text
from fastdistill.text.tokenizer_config import mask_token_id
from fastdistill.user_cache import user_cache

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastdistill.encode import Labels, Ranked, TextEncoder

Prompt = str | Sequence[int] | np.ndarray
MOST_TEXTS = 1 << 16  # of one prompt
TIMED_SOURCE = 64  # tokens of the source that forwards are timed with


def load(
    folder: str | os.PathLike[str],
    format: str | None = None,
    threads: int | None = None,
    *,
    executor: str = "native",
    progress: Callable[[int, int], None] | None = None,
    text: bool = False,
) -> Model:
    """Load a model from a Hugging Face or fastdistill folder, or by its name.

    Parameters
    ----------
    folder : str | os.PathLike[str]
        config.json, *.safetensors, and for text tokenizer.json; or the name of a model that comes with the package
        ("listops-mdlm") or that `fastdistill fetch` has fetched ("smollm2-135m-instruct")
    format : str, optional
        convert linears and head: "f32", "f16", "bf16", "q8" or "q4"; None keeps what is stored
    threads : int, optional
        of every forward; default: FASTDISTILL_THREADS, else what this process may use
    executor : str, default "native"
        "native", or "reference": NumPy, op by op, slow
    progress : Callable[[int, int], None], optional
        called with (tensors packed, tensors in all)
    text : bool, default False
        read the tokenizer now, not at the first use of text: before the weights, so that what its reading takes for a
        moment, 40 MB for 49,152 tokens, is theirs afterwards

    Raises
    ------
    CheckpointError
        for what is wrong with the folder
    TextError
        for what is wrong with its tokenizer, where it is read
    UnsupportedError
    ArgumentError

    Examples
    --------
    >>> model = fd.load(folder)
    >>> model.plan.architecture, model.vocab_size
    ('llama', 300)
    >>> fd.load(folder, format="q4").plan.architecture
    'llama'
    """
    folder = find_folder(folder)
    with open_checkpoint(folder) as checkpoint:
        plan = plan_of(checkpoint)
        for note in checkpoint.notes:
            warn(f"{folder}: {note}")
        end_tokens = eos_token_ids(checkpoint.config, checkpoint.generation_config)
        generation = Section(checkpoint.generation_config, "generation_config.json")
        max_new_tokens = generation.integer("max_new_tokens", minimum=1, default=None)
        target, search = None, None
        if plan.start_token is not None:
            said = checkpoint.config, checkpoint.generation_config
            target, search = target_of(*said, plan.start_token, plan.vocab_size), search_of(said_of_texts(*said))
        if plan.encodes and "logits" in plan.outputs:
            plan = replace(plan, mask_token=mask_token_id(folder, plan.vocab_size))
        tokenizer = _read_tokenizer(folder) if check_flag("text", text) else None
        network = Network(plan, checkpoint.tensors, format, threads, executor, progress)
    lib.fd_return_memory()
    model = Model(network, folder, end_tokens, max_new_tokens, tokenizer, target, search)
    model.recall_threads()
    return model


def _read_tokenizer(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer(folder)
    lib.fd_return_memory()  # twice what the tokenizer keeps
    return tokenizer


@dataclass(frozen=True)
class Score:
    """How likely a model finds a text: log_probs[i] (natural) is that of tokens[i + 1] after tokens[: i + 1].

    Attributes
    ----------
    tokens : list[int]
        n of them, the first one given, not judged
    log_probs : float32 (n - 1,)
        natural logarithms
    """

    tokens: list[int]
    log_probs: np.ndarray

    @property
    def total(self) -> float:
        return float(self.log_probs.sum(dtype=np.float64))

    @property
    def perplexity(self) -> float:
        if not len(self.log_probs):
            return float("nan")
        with np.errstate(over="ignore"):
            return float(np.exp(-self.log_probs.mean(dtype=np.float64)))


class Model:
    """A loaded model: immutable, to be shared between threads. `load` makes it.

    Attributes
    ----------
    network : Network
        its packed weights, and the plan they belong to
    folder : Path
        where it was read
    end_tokens : frozenset[int]
        those that end a text
    max_new_tokens : int | None
        how long generation_config.json has an answer be; None where it does not say
    target : Target | None
        of a model with an encoder: how what it writes begins and ends; None: it has none
    search : BeamSearch | None
        of a model with an encoder: what generation_config.json has write where no decoder is asked for; None: it does not say
    """

    def __init__(
        self,
        network: Network,
        folder: Path,
        end_tokens: frozenset[int],
        max_new_tokens: int | None = None,
        tokenizer: Tokenizer | None = None,
        target: Target | None = None,
        search: BeamSearch | None = None,
    ) -> None:
        self.network = network
        self.target = target
        self.search = search
        self.folder = folder
        self.end_tokens = end_tokens
        self.max_new_tokens = max_new_tokens
        if tokenizer is not None:
            self.__dict__["tokenizer"] = tokenizer

    def __repr__(self) -> str:
        """<Model 'smollm2-135m-instruct': llama, 134,515,008 parameters, q4 and f32, 8,192 positions, 2 threads>"""
        parameters = sum(math.prod(weight.shape) for weight in self.plan.weights.values())
        formats = Counter(
            self.network.weights.formats[name] for name, weight in self.plan.weights.items() if weight.linear
        )
        return (
            f"<Model {short(self.folder.absolute().name)}: {self.plan.architecture}, {parameters:,} parameters, "
            f"{' and '.join(format for format, _ in formats.most_common())}, {self.plan.max_positions:,} positions, "
            f"{self.threads} thread{'s' * (self.threads > 1)}>"
        )

    def __copy__(self) -> Model:
        return self  # nothing of it changes

    def __deepcopy__(self, memo: object) -> Model:
        return self

    def __reduce__(self) -> NoReturn:
        raise UnsupportedError(
            f"a Model is not pickled: its weights are packed for this machine.  In the other process, load {short(str(self.folder))} again"
        )

    @property
    def plan(self) -> Plan:
        """What is computed."""
        return self.network.plan

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        return self.plan.vocab_size

    @property
    def threads(self) -> int:
        """Threads of every forward."""
        return self.network.threads

    @cached_property
    def has_text(self) -> bool:
        """Whether the folder holds a tokenizer."""
        return reads_text(self.folder)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Read on first use, or by `load(text=True)`: tokens alone need none.

        Raises
        ------
        TextError
            when the folder has none, or the package `tokenizers` is not there
        """
        return _read_tokenizer(self.folder)

    @cached_property
    def costs(self) -> Costs:
        """What a forward costs here, by rows and context, and on how many threads few rows are fastest.

        Measured once (a second or two) and kept in `costs_file`; models that `load` makes afterwards find it there.
        """
        costs = kept_costs(self.costs_file, self.measure_costs)
        self.network.threads_of.few = costs.threads
        return costs

    @property
    def costs_file(self) -> Path | None:
        """Where the user's cache keeps `costs` from their first use on; None without one."""
        cache = user_cache()
        shapes = sorted(
            (name, weight.shape, self.network.weights.formats[name]) for name, weight in self.plan.weights.items()
        )
        facts = repr(
            (__version__, shapes, self.plan.num_heads, self.threads, self.network.threads_of.fixed, isa(), processor())
        )
        name = f"{self.plan.architecture}-{isa()}-{self.threads}-{crc32(facts.encode()):08x}.json"
        return None if cache is None else cache / "costs" / name

    def measure_costs(self) -> Costs:
        """Measure them now, whatever the cache holds."""
        few: tuple[tuple[int, int], ...] = ()
        weights = self.network.weights
        if self._may_choose_threads and isinstance(weights, PackedWeights):
            networks = {n: Network.over(self.plan, weights, n) for n in thread_counts(self.threads)}
            few = fastest_threads({n: partial(_to_be_timed, network) for n, network in networks.items()})
        self.network.threads_of.few = few
        measured = measure_costs(partial(_to_be_timed, self.network), self.plan.max_positions)
        return replace(measured, threads=few)

    @property
    def _may_choose_threads(self) -> bool:
        fixed = self.network.threads_of.fixed or self.plan.max_positions < THREAD_POSITIONS
        return self.threads > 1 and not fixed

    def recall_threads(self) -> None:
        """Run forwards of few rows on as many threads as `costs` once found to be fastest; where nobody has measured, on all."""
        if self._may_choose_threads and (known := read_costs(self.costs_file)) is not None:
            self.network.threads_of.few = known.threads

    def session(
        self, capacity: int | None = None, max_rows: int = 128, cache: str | None = None, taps: Iterable[str] = ()
    ) -> Session:
        """A new, empty sequence: see `Network.session`.

        Parameters
        ----------
        capacity : int, optional
            most committed tokens; default: what the model was trained for
        max_rows : int, default 128
            most rows of one forward
        cache : str, optional
            "f16" or "f32" keys and values; default: as the weights are
        taps : Iterable[str], default ()
            names of hidden states to give with every forward

        Examples
        --------
        >>> model = fd.load(folder)
        >>> session = model.session()
        >>> first = model.generate("Once upon a time", session=session, max_tokens=4)
        >>> again = model.generate("Once upon a day", session=session, max_tokens=4)
        >>> again.stats.prompt_tokens, again.stats.reused_tokens  # "Once upon a " has been read
        (15, 12)
        """
        return self.network.session(capacity, max_rows, cache, taps)

    def load_session(
        self,
        path: str | os.PathLike[str],
        capacity: int | None = None,
        max_rows: int = 128,
        taps: Iterable[str] = (),
    ) -> Session:
        """The sequence that `Session.save` has written to a file: see `Network.load_session`.

        Parameters
        ----------
        path : str | os.PathLike[str]
            of the file
        capacity : int, optional
            most committed tokens; default: what the model was trained for
        max_rows : int, default 128
            most rows of one forward
        taps : Iterable[str], default ()
            names of hidden states to give with every forward
        """
        return self.network.load_session(path, capacity, max_rows, taps)

    def logits(self, ids: Sequence[int] | np.ndarray, source: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Logits of every row of a text, float32 (n, vocab_size): each sees those before it, or its block, or all, as the model does.

        Parameters
        ----------
        ids : Sequence[int] | np.ndarray
            the text's tokens; of a model with an encoder those that are written, from `target.start` on
        source : Sequence[int] | np.ndarray, optional
            of such a model: what they are written of

        Examples
        --------
        >>> fd.load(folder).logits([5, 17, 42]).shape
        (3, 300)
        """
        return self._rows(ids, lambda rows: Read(logits=True), lambda result: result.logits, source)

    @overload
    def score(self, texts: str) -> Score: ...  # type: ignore[overload-overlap]  # a str is a sequence of str, but is this
    @overload
    def score(self, texts: Sequence[str]) -> list[Score]: ...
    def score(self, texts: str | Sequence[str]) -> Score | list[Score]:
        """How likely the model finds each text, as its tokenizer encodes it.

        Parameters
        ----------
        texts : str | Sequence[str]
            a text, or several

        Raises
        ------
        UnsupportedError
            for a model that is not causal: it says no token's probability after those before it; nor does one with an
            encoder, without a source

        Examples
        --------
        >>> model = fd.load(folder)
        >>> texts = model.score(["one two three", "a text that is longer"])
        >>> [len(each.log_probs) for each in texts]  # of each token but the first
        [12, 20]
        """
        if not self.plan.causal:
            raise UnsupportedError("score needs a causal model: this one predicts a token from both sides of it")
        if self.target is not None:
            raise UnsupportedError(
                "score needs a model of texts alone: this one has an encoder and writes of a source; logits(ids, source=...) "
                "says how likely each next token is"
            )
        if isinstance(texts, str):
            return self._score(texts)
        if isinstance(texts, (bytes, bytearray, memoryview)) or not isinstance(texts, Sequence):
            raise ArgumentError(f"texts must be a str or a list of them, got {short(texts)}")
        return [self._score(text) for text in texts]

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        batch_size: int | None = None,
        normalize_embeddings: bool | None = None,
        pooling: str | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        show_progress_bar: bool = False,
    ) -> np.ndarray:
        """A vector of each text, by an encoder: BERT and its kin. A text has the same bits alone and among others.

        What is not given is as the folder says, in the files that sentence-transformers writes beside a model's:
        modules.json, 1_Pooling/config.json, sentence_bert_config.json, config_sentence_transformers.json; without them
        a vector is the mean of a text's rows. Texts longer than the model reads are cut, with one warning.

        Parameters
        ----------
        texts : str | Sequence[str]
            a text, or several
        batch_size : int, optional
            texts that share a pass; default: as many as make 1,024 tokens
        normalize_embeddings : bool, optional
            True: vectors of length 1
        pooling : str, optional
            how rows become a vector: "mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens", or "pooler", the
            model's own linear and tanh over the first row; what the folder has behind its pooling is left out then
        prompt_name : str, optional
            of the folder's prompts: what is put before each text
        prompt : str, optional
            the words themselves
        truncate_dim : int, optional
            only the first so many numbers, normalised afterwards
        show_progress_bar : bool, default False
            a bar on stderr

        Returns
        -------
        float32 (width,) of a text, (texts, width) of several

        Raises
        ------
        UnsupportedError
            for a model that is no encoder, or lacks the pooler
        ArgumentError
        CheckpointError
            for what is wrong with one of these files
        TextError
            for what is wrong with the tokenizer
        NotFiniteError
            for a vector that would hold a NaN or an infinity

        Examples
        --------
        >>> model = fd.load(encoder)
        >>> model.encode(["one text", "another one"], normalize_embeddings=True).shape
        (2, 32)
        """
        several = self._several(texts, "texts")
        with _texts_bar(show_progress_bar, "encode") as progress:
            vectors = self._encoder.encode(
                several,
                batch_size=batch_size,
                normalize_embeddings=normalize_embeddings,
                pooling=pooling,
                prompt_name=prompt_name,
                prompt=prompt,
                truncate_dim=truncate_dim,
                progress=progress,
            )
        return vectors[0] if isinstance(texts, str) else vectors

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_k: int | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
    ) -> list[Ranked]:
        """Documents by how well they fit a query, best first, equal ones in their order.

        A classifier with one label, a cross-encoder, reads query and document together; its score lies between 0 and 1,
        or is what the model gives where its folder asks for that. Any other encoder compares vectors: the cosine, with
        the prompts "query" and "document" where the folder has them.

        Parameters
        ----------
        query : str
            what is looked for
        documents : Sequence[str]
            texts
        top_k : int, optional
            the first so many; default: all
        batch_size : int, optional
            as of `encode`
        show_progress_bar : bool, default False
            a bar on stderr

        Raises
        ------
        UnsupportedError
            for a model that is no encoder, and a classifier with several labels
        ArgumentError

        Examples
        --------
        >>> best, *_ = fd.load(encoder).rank("a text", ["something else", "a text"])
        >>> best.index, best.text
        (1, 'a text')
        """
        check_text("query", query)
        several = self._several(documents, "documents")
        with _texts_bar(show_progress_bar, "rank") as progress:
            return self._encoder.rank(query, several, top_k, batch_size, progress)

    @overload
    def classify(  # type: ignore[overload-overlap]  # a str is a sequence of str, but is this
        self, texts: str | tuple[str, str], *, batch_size: int | None = None, show_progress_bar: bool = False
    ) -> Labels: ...
    @overload
    def classify(
        self, texts: Sequence[str | tuple[str, str]], *, batch_size: int | None = None, show_progress_bar: bool = False
    ) -> list[Labels]: ...
    def classify(
        self, texts: Any, *, batch_size: int | None = None, show_progress_bar: bool = False
    ) -> Labels | list[Labels]:
        """What a classifier says of each text, or of each pair of texts, (first, second).

        Parameters
        ----------
        texts : str | tuple[str, str] | Sequence[str | tuple[str, str]]
            a text or a pair, or several
        batch_size : int, optional
            as of `encode`
        show_progress_bar : bool, default False
            a bar on stderr

        Returns
        -------
        Labels of a text or pair, or a list of them

        Raises
        ------
        UnsupportedError
            for a model without a classifier
        ArgumentError
        """
        single = isinstance(texts, (str, tuple))
        several = self._several([texts] if single else texts, "texts", pairs=True)
        with _texts_bar(show_progress_bar, "classify") as progress:
            found = self._encoder.classify(several, batch_size, progress)
        return found[0] if single else found

    def chat_prompt(
        self,
        messages: Sequence[Any],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool | str = False,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        chat_template: str | None = None,
        **variables: Any,
    ) -> list[int]:
        """The tokens that ask for the next turn of a conversation, by the model's own template (extra `demo`).

        Parameters
        ----------
        messages : Sequence[Any]
            [{"role": "user", "content": "..."}, ...]; a key that is None counts as absent
        add_generation_prompt : bool, default True
            end with what opens the assistant's turn
        continue_final_message : bool | str, default False
            end within the last message, for the model to write it on; a str names what of it goes on in place of "content"
        tools, documents : Sequence[Any], optional
            functions or their JSON schemas, and dicts, for a template that has a place for them
        chat_template : str, optional
            the name of one of the model's templates, or one's own text; default: the model says
        **variables : Any
            what else the template reads, `enable_thinking=False` say

        Raises
        ------
        ArgumentError
            for what is no conversation
        TextError
            where the template refuses or fails, or there is none
        """
        text = render_chat(
            self.tokenizer, messages, add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message, tools=tools, documents=documents, chat_template=chat_template,
            **variables,
        )  # fmt: skip
        return self.tokenizer.encode(text, special=False)

    @overload
    def chat(
        self,
        messages: Sequence[Any],
        *,
        stream: Literal[False] = False,
        template: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> Generation: ...

    @overload
    def chat(
        self,
        messages: Sequence[Any],
        *,
        stream: Literal[True],
        template: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> Generator[Piece, None, Generation]: ...

    @signed
    def chat(
        self,
        messages: Sequence[Any],
        *,
        stream: bool = False,
        template: Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> Generation | Generator[Piece, None, Generation]:
        """Write the next turn of a conversation.

            model.chat(messages).text
            for piece in model.chat(messages, stream=True): ...

        Parameters
        ----------
        messages : Sequence[Any]
            [{"role": "user", "content": "..."}, ...]
        stream : bool, default False
            give pieces as `Model.stream` does, in place of the Generation
        template : Mapping[str, Any], optional
            options of `chat_prompt`: {"tools": [...], "enable_thinking": False}
        **options : Unpack[Options]
            those of `generate`

        Examples
        --------
        >>> model = fd.load(folder)
        >>> messages = [{"role": "user", "content": "Name a river."}]
        >>> answer = model.chat(messages, max_tokens=8)
        >>> "".join(model.chat(messages, stream=True, max_tokens=8)) == answer.text
        True
        """
        resolved("chat", options)  # checks their names
        template = {} if template is None else template
        if not isinstance(template, Mapping) or not all(isinstance(name, str) for name in template):
            raise ArgumentError(f"template must be a dict of chat_prompt's options, got {short(template)}")
        if not template.keys().isdisjoint(("self", "messages")):
            raise ArgumentError("template cannot hold the messages: they are chat's own argument")
        prompt = self.chat_prompt(messages, **template)
        answer: Any = (
            self.stream(prompt, **options) if check_flag("stream", stream) else self.generate(prompt, **options)
        )
        return answer  # type: ignore[no-any-return]

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a sequence of prompts, but is this
        self, prompt: Prompt, *, n: None = None, **options: Unpack[Options]
    ) -> Generation: ...
    @overload
    def generate(self, prompt: Prompt, *, n: int, **options: Unpack[Options]) -> list[Generation]: ...
    @overload
    def generate(self, prompt: Sequence[Prompt], **options: Unpack[Options]) -> list[Generation]: ...
    @signed
    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        *surplus: NoReturn,
        n: int | None = None,
        **options: Unpack[Options],
    ) -> Generation | list[Generation]:
        """Write on from a prompt, or from each prompt of a list, all in the same passes and each as if alone.

        A model with an encoder reads the prompt as its source and writes what it makes of it.

        Parameters
        ----------
        prompt : Prompt | Sequence[Prompt]
            text or token ids, or a list of those
        n : int | None, default None
            write so many texts of one prompt, each by a chance of its own, and give a list: text i is the same whatever
            n is, text 0 that of n=None; at temperature 0 they are all equal. With BeamSearch: the n best, or as many as
            it ends with
        max_tokens : int | None, default None
            most new tokens; 0 gives an empty Generation; default: the model's own, else 128
        min_tokens : int | None, default 0
            tokens before which end-of-text cannot be drawn
        temperature : float | None, default 0.0
            how a token is chosen: see `Sampler`, as for the next ones; temperature 0 takes the likeliest
        top_k : int | None, default 0
            the k largest logits; 0: all
        top_p : float | None, default 1.0
            the shortest prefix, best first, of at least this mass
        min_p : float | None, default 0.0
            what is no less likely than this share of the best
        repetition_penalty : float | None, default 1.0
            on tokens of prompt and answer
        frequency_penalty : float | None, default 0.0
            for each time that the answer has a token
        presence_penalty : float | None, default 0.0
            once for each token that the answer has
        no_repeat_ngram_size : int | None, default None
            no run of so many tokens that prompt or answer hold already; 0: any; default: that of generation_config.json of a
            model with an encoder, else 0
        logit_bias : Mapping[int, float] | None, default None
            added to the logits of these tokens
        allowed : Sequence[int] | set[int] | frozenset[int] | Array | None, default None
            tokens that may be drawn: ids, or a bool array (vocab_size,) that is True at them
        seed : int | None, default 0
            same seed, same text, whatever else runs; None is 0 too: nothing is drawn from the clock
        stop : str | Sequence[str] | set[str] | frozenset[str] | None, default ()
            strings that end the text, itself without them
        stop_token_ids : Sequence[int] | set[int] | frozenset[int] | Array | None, default ()
            tokens that end it, beside those of config and generation_config
        grammar : Grammar | Constraint | None, default None
            what the text has to be: JsonSchema({...}), Regex(...), Lark(...), Gbnf(...), Choices([...]) of `fd.constraint`, or
            a constraint of one's own; it ends where it is that, or with finish_reason "length"
        logprobs : int | None, default 0
            give the log probability of each token and of so many likeliest ones
        session : Session | None, default None
            write in this session, reusing the longest common prefix of what it holds (one prompt only)
        decoder : Decoder | str | None, default None
            a decoder; "auto": Auto(), the same text, sooner where guesses pay; BeamSearch(num_beams=4): another one, the
            likeliest; default: Autoregressive(), of a masked diffusion model Unmask(), and of a model with an encoder whose
            generation_config.json asks for beams, as those of translations do, that search (`Model.search`), unless
            temperature, top_k, top_p or min_p have tokens drawn

        Raises
        ------
        ArgumentError
        CapacityError
            for a prompt longer than the capacity
        BusyError
        PartialError
            where a text of a list failed, each alone: when the others are finished, this holds every Generation, with
            `error` where one failed; where all did, what the first one raised

        Notes
        -----
        An option that is None has its default.

        Examples
        --------
        >>> model = fd.load(folder)
        >>> answer = model.generate("Once upon a time", max_tokens=8)
        >>> len(answer.tokens), answer.finish_reason
        (8, 'length')
        >>> warm = model.generate(["a list", "of prompts"], max_tokens=8, temperature=0.7, seed=1)
        >>> warm[1].tokens == model.generate("of prompts", max_tokens=8, temperature=0.7, seed=1).tokens
        True
        """
        asked = resolved("generate", options, surplus, ["n"])
        prompts = _prompts(prompt)
        asked["decoder"] = decoder = asked_decoder(self, asked)
        search = decoder if isinstance(decoder, BeamSearch) else None
        if asked["session"] is not None and (prompts is not None or (n is not None and search is None)):
            raise ArgumentError(f"session serves one text, got {'a list of prompts' if n is None else f'n={short(n)}'}")
        if n is not None:
            if prompts is not None:
                raise ArgumentError("n is for one prompt, got a list: ask for each of them")
            count = check_integer("n", n, 1, MOST_TEXTS)
            if search is not None and count > search.num_beams:
                raise ArgumentError(
                    f"n={count} texts are more than the num_beams={search.num_beams} that a search ends with"
                )
            each = [(prompt, sequence) for sequence in range(count if search is None else 1)]
            greedy = check_number("temperature", asked["temperature"], 0, math.inf) == 0
            if len(each) > 1 and self.plan.causal and greedy:
                warn(f"n={n} texts at temperature 0 are all equal: set temperature above 0")
        else:
            each = [(one, 0) for one in ([prompt] if prompts is None else prompts)]
        with _writing(asked["session"]):
            generations = unless_failed(self._written(each, asked))
        if search is not None and n is not None:
            (best,) = generations
            return [best, *best.runners_up][:n]
        return generations[0] if prompts is None and n is None else generations

    def _written(self, each: Sequence[tuple[Any, int]], asked: Mapping[str, Any]) -> list[Generation]:
        """Texts of prompts, each with its number among those of one prompt and seed; one that cannot begin has its error."""
        reading = Reading(self.network)
        return _write(attempt(task, self, one, asked, sequence, reading) for one, sequence in each)

    @signed
    def stream(
        self, prompt: Prompt, *surplus: NoReturn, **options: Unpack[Options]
    ) -> Generator[Piece, None, Generation]:
        """As `generate` for one prompt: yields pieces of text as they become certain; together they are `.text`.

        A `for` loop sees the pieces, each a str that has the tokens it came of; the generator's return value is the
        Generation.

        Parameters
        ----------
        prompt : Prompt
            text or token ids
        **options : Unpack[Options]
            those of `generate`

        Examples
        --------
        >>> model = fd.load(folder)
        >>> pieces = list(model.stream("Once upon a time", max_tokens=8))
        >>> "".join(pieces) == model.generate("Once upon a time", max_tokens=8).text
        True
        """
        asked = resolved("stream", options, surplus)
        if _prompts(prompt) is not None:
            raise ArgumentError("stream takes one prompt, got a list")
        written = task(self, prompt, asked)
        with _writing(asked["session"]):
            written.begin()
        return self._stream(written, asked["session"])

    def _stream(self, task: Task, session: Session | None) -> Generator[Piece, None, Generation]:
        engine = Engine(1)
        engine.submit(task)
        while engine.tasks:
            with _writing(session):  # between two steps another text may take it over, which ends this one
                events = engine.step()
            yield from [event.piece for event in events]
        result = task.result
        del task, engine  # an error holds this frame
        return unless_failed([result])[0]

    @overload
    def fill(  # type: ignore[overload-overlap]  # a str is a sequence of texts, but is this
        self, text: Prompt, **options: Unpack[FillOptions]
    ) -> Generation: ...
    @overload
    def fill(self, text: Sequence[Prompt], **options: Unpack[FillOptions]) -> list[Generation]: ...
    @partial(signed, kind=FillOptions)
    def fill(self, text: Prompt | Sequence[Prompt], **options: Unpack[FillOptions]) -> Generation | list[Generation]:
        """Fill the masks within a text, or within each text of a list, in the same passes and each as if alone.

        For models that see a text from both sides: BERT and its kin with a masked head, and masked diffusion models. A mask
        is the tokenizer's mask token: "Paris is the [MASK] of France." What stands around the masks never changes.

        Parameters
        ----------
        text : Prompt | Sequence[Prompt]
            text, around which the tokenizer puts its special tokens, or token ids, which are taken as they are; or a list of those
        temperature : float | None, default 0.0
            0 takes the likeliest token of each mask, above 0 draws one
        top_k : int | None, default 0
            of what is drawn, the k largest logits; 0: all.  For the k likeliest tokens of each mask ask for `logprobs`
        top_p : float | None, default 1.0
            of what is drawn, the shortest prefix, best first, of at least this mass
        min_p : float | None, default 0.0
            of what is drawn, what is no less likely than this share of the best
        logit_bias : Mapping[int, float] | None, default None
            added to the logits of these tokens
        allowed : Sequence[int] | set[int] | frozenset[int] | Array | None, default None
            tokens that may fill a mask: ids, or a bool array (vocab_size,) that is True at them
        seed : int | None, default 0
            same seed, same text
        logprobs : int | None, default 0
            give the log probability of each mask's token and of so many likeliest ones, of all tokens but the mask, as the forward
            that filled it has them
        decoder : Decoder | str | None, default None
            an Unmask, which says how many masks a forward fills, and which; default: Unmask().  Unmask(max_steps=1) fills all
            from one forward, as fill-mask pipelines do

        Returns
        -------
        Generation of a text, or a list of them: `text` is the whole text with its masks filled, without special tokens; `tokens` are
        those that fill the masks, one a mask from left to right, as are `logprobs` and the places of a trace. A text without masks is
        given back as it is

        Raises
        ------
        UnsupportedError
            for a model that is causal, predicts no tokens, or reads in blocks, of which none sees what is behind it
        CapacityError
            for a text longer than the model reads
        ArgumentError
        PartialError
            as `generate`

        Examples
        --------
        >>> model = fd.load("listops-mdlm")
        >>> filled = model.fill("<|bos|> sort : dog ant cow bat _ _ _ _ | _ _ -> ant <|mask|> cow <|mask|>", logprobs=2)
        >>> filled.text.partition("->")[2], [model.tokenizer.token(token) for token in filled.tokens]
        (' ant bat cow dog', ['bat', 'dog'])
        >>> [len(mask.top) for mask in filled.logprobs]
        [2, 2]
        """
        asked = resolved("fill", options, kind=FillOptions)
        texts = _prompts(text)
        each = [text] if texts is None else texts
        generations = unless_failed(_write(attempt(fill_task, self, one, asked) for one in each))
        return generations[0] if texts is None else generations

    @cached_property
    def _encoder(self) -> TextEncoder:
        plan = self.plan
        if not plan.encodes:
            raise UnsupportedError(
                f"this model ({plan.architecture}) writes texts and makes no vectors of them: that is for encoders, such as BERT"
            )
        from fastdistill.encode import TextEncoder  # which most models do not need

        return TextEncoder(self.network, self.folder, self.tokenizer)

    @staticmethod
    def _several(texts: Any, name: str, pairs: bool = False) -> list[Any]:
        """A list of texts, of pairs too where there may be some; of one text, it alone."""
        if isinstance(texts, str):
            texts = [texts]
        if isinstance(texts, (bytes, bytearray, memoryview)) or not isinstance(texts, Sequence):
            raise ArgumentError(f"{name} must be a list of str, got {short(texts)}")
        for text in texts:
            pair = pairs and isinstance(text, tuple) and len(text) == 2
            for part in text if pair else (text,):
                check_text(f"each of {name}{', or both parts of a pair,' * pairs}", part)
        return list(texts)

    def _score(self, text: str) -> Score:
        ids = encoded(self, text)
        if len(ids) < 2:
            return Score(ids, np.empty(0, np.float32))
        after = np.array(ids[1:], np.int32)
        log_probs = self._rows(ids[:-1], lambda rows: Read(log_prob_of=after[rows]), lambda result: result.log_probs)
        return Score(ids, log_probs)

    def _rows(
        self, ids: Any, read: Callable[[slice], Read], field: Callable[[Any], np.ndarray], source: Any = None
    ) -> np.ndarray:
        """One field of every row of a text, perhaps of a source: of a chain, chunk by chunk."""
        ids = check_integers("ids", ids, 0, self.vocab_size - 1)
        if source is not None:
            source = check_source(source, self.plan)
        elif self.target is not None:
            raise ArgumentError("source must be given: this model has an encoder, and writes ids of what that has read")
        if len(ids) > self.plan.max_positions:
            raise CapacityError(
                f"{len(ids)} tokens are more than {self.plan.max_positions}, the model's {self.plan.positions_source}"
            )
        if not self.plan.causal:
            session = self.session(capacity=1, max_rows=len(ids))
            nodes = np.arange(len(ids)) // (self.plan.block or len(ids))
            return field(session.forward(ids, nodes=nodes, parents=range(-1, int(nodes[-1])), read=read(slice(None))))
        session, parts = self.session(capacity=len(ids)), []
        if source is not None:
            session.read_source(source)
        for start in range(0, len(ids), session.max_rows):
            rows = slice(start, min(start + session.max_rows, len(ids)))
            parts.append(field(session.forward(ids[rows], read=read(rows))))
        return np.concatenate(parts)


def _to_be_timed(network: Network, *arguments: Any, **options: Any) -> Session:
    """A session as `Network.session` makes it, whose rows can run: with a source, if the model reads one."""
    session, plan = network.session(*arguments, **options), network.plan
    if plan.source_positions:
        session.read_source(np.arange(min(TIMED_SOURCE, plan.source_positions)) % plan.vocab_size)
    return session


def _texts_bar(show: bool, what: str) -> AbstractContextManager[Callable[[int, int], None] | None]:
    from fastdistill.encode.progress import texts_bar

    return texts_bar(check_flag("show_progress_bar", show), what)


def _write(tasks: Iterable[Task | Exception]) -> list[Generation]:
    """What becomes of texts; one that cannot begin has its error."""
    return write(Task.failed(task) if isinstance(task, Exception) else task for task in tasks)


def _writing(session: Any) -> AbstractContextManager[None]:
    """Hold the session that was given, if one was, against another thread's text."""
    return session.entered("text") if isinstance(session, Session) else nullcontext()


def _prompts(prompt: Any) -> list[Any] | None:
    """The prompts of a list of prompts (an empty list: of none), None for a single one."""
    single = isinstance(prompt, (str, bytes, bytearray, memoryview, range)) or not isinstance(prompt, Sequence)
    single = single or (len(prompt) > 0 and isinstance(prompt[0], (int, np.integer)))
    if any(map(is_conversation, (prompt,) if single else prompt)):
        raise ArgumentError(
            "prompt must be text or token ids, got messages: chat(messages) answers them, chat_prompt(messages) gives "
            "their tokens"
        )
    return None if single else list(prompt)
