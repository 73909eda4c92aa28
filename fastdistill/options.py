"""The options of `generate`, `stream` and `fill`: their types for type checkers, their defaults, and what other programs call them.

Each is here once: signatures, `help()`, editors and errors read them from here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar

from fastdistill.errors import ArgumentError
from fastdistill.messages import short

F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    from fastdistill.decode.constraint import Constraint, Grammar
    from fastdistill.decode.request import Decoder
    from fastdistill.runtime.session import Session


class Array(Protocol):
    """A NumPy array.  (Its own type holds an Any, which would make an Any of what an overloaded function returns.)"""

    @property
    def dtype(self) -> Any: ...
    @property
    def ndim(self) -> int: ...
    def __array__(self) -> Any: ...


class FillOptions(TypedDict, total=False):
    """What `fill` may be asked for by name; `Model.fill` says what each means.  None is the default of any."""

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    logit_bias: Mapping[int, float] | None
    allowed: Sequence[int] | set[int] | frozenset[int] | Array | None
    seed: int | None
    logprobs: int | None
    decoder: Decoder | str | None


class Options(FillOptions, total=False):
    """What `generate` may be asked for by name; `Model.generate` says what each means.  None is the default of any.

    For functions that pass options on: `def ask(prompt: str, **options: Unpack[Options]) -> str`.
    """

    max_tokens: int | None
    min_tokens: int | None
    repetition_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    no_repeat_ngram_size: int | None
    stop: str | Sequence[str] | set[str] | frozenset[str] | None
    stop_token_ids: Sequence[int] | set[int] | frozenset[int] | Array | None
    grammar: Grammar | Constraint | None
    session: Session | None


DEFAULTS: Options = {
    "max_tokens": None,
    "min_tokens": 0,
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "no_repeat_ngram_size": None,
    "logit_bias": None,
    "allowed": None,
    "seed": 0,
    "stop": (),
    "stop_token_ids": (),
    "grammar": None,
    "logprobs": 0,
    "session": None,
    "decoder": None,
}

_MAX_TOKENS, _GUESSES = "max_tokens", "decoder=Speculative({})"
_BEAMS = "decoder=BeamSearch({})"
_GRAMMAR = "grammar=constraint.{}"
_SCHEMA = _GRAMMAR.format("JsonSchema({...})")
_DRAWN = "temperature: 0 takes the likeliest token, more than 0 draws one"
# Words of other libraries and servers -> what to give here.
SYNONYMS = {
    "max_new_tokens": _MAX_TOKENS, "max_length": _MAX_TOKENS, "max_len": _MAX_TOKENS, "max_gen_len": _MAX_TOKENS,
    "max_completion_tokens": _MAX_TOKENS, "max_output_tokens": _MAX_TOKENS, "n_predict": _MAX_TOKENS,
    "num_predict": _MAX_TOKENS, "n_tokens": _MAX_TOKENS, "num_tokens": _MAX_TOKENS, "length": _MAX_TOKENS,
    "min_new_tokens": "min_tokens", "min_length": "min_tokens",
    "temp": "temperature", "do_sample": _DRAWN, "sample": _DRAWN, "greedy": _DRAWN,
    "repeat_penalty": "repetition_penalty", "repetition": "repetition_penalty", "rep_pen": "repetition_penalty",
    "random_seed": "seed", "random_state": "seed", "generator": "seed", "rng": "seed",
    "stop_strings": "stop", "stop_sequences": "stop", "stop_words": "stop", "stopping_criteria": "stop", "until": "stop",
    "eos_token_id": "stop_token_ids", "eos_token_ids": "stop_token_ids", "end_tokens": "stop_token_ids",
    "stop_tokens": "stop_token_ids", "terminators": "stop_token_ids",
    "top_logprobs": "logprobs", "n_probs": "logprobs", "output_scores": "logprobs", "return_logprobs": "logprobs",
    "num_return_sequences": "n", "num_samples": "n", "n_samples": "n", "best_of": "n",
    "logits_bias": "logit_bias", "bias": "logit_bias", "bad_words_ids": "logit_bias with -inf for each of them",
    "bad_words": "logit_bias with -inf for each of their tokens", "suppress_tokens": "logit_bias with -inf for each of them",
    "allowed_tokens": "allowed", "allowed_token_ids": "allowed", "mask": "allowed", "targets": "allowed",
    "response_format": _SCHEMA, "json_schema": _SCHEMA, "schema": _SCHEMA, "json": _SCHEMA, "guided_json": _SCHEMA, "output_schema": _SCHEMA,
    "regex": _GRAMMAR.format("Regex(regex)"), "guided_regex": _GRAMMAR.format("Regex(guided_regex)"),
    "guided_choice": _GRAMMAR.format("Choices(guided_choice)"), "choices": _GRAMMAR.format("Choices(choices)"),
    "guided_grammar": _GRAMMAR.format("Lark(guided_grammar)"), "lark": _GRAMMAR.format("Lark(lark)"), "ebnf": _GRAMMAR.format("Lark(ebnf)"),
    "gbnf": _GRAMMAR.format("Gbnf(gbnf)"), "guided_decoding": "grammar", "structured_outputs": "grammar", "constraint": "grammar",
    "prefix_allowed_tokens_fn": "grammar, a constraint of your own", "logits_processor": "grammar, a constraint of your own",
    "cache": "session", "past_key_values": "session", "cache_prompt": "session", "use_cache": "session", "kv_cache": "session",
    "draft_model": _GUESSES.format("ModelDrafter(draft_model)"), "assistant_model": _GUESSES.format("ModelDrafter(assistant_model)"),
    "drafter": _GUESSES.format("drafter"), "prompt_lookup_num_tokens": _GUESSES.format("PromptLookup()"),
    "num_beams": _BEAMS.format("num_beams=4"), "beam_size": _BEAMS.format("num_beams=4"), "beam_width": _BEAMS.format("num_beams=4"),
    "beams": _BEAMS.format("num_beams=4"), "use_beam_search": _BEAMS.format("num_beams=4"),
    "length_penalty": _BEAMS.format("length_penalty=1.0"), "early_stopping": _BEAMS.format("early_stopping=True"),
    "rule": "decoder=Unmask(rule)", "sampler": "its settings by name, such as temperature and top_p",
    "stream": "model.stream(prompt)", "streamer": "model.stream(prompt)", "callback": "model.stream(prompt)",
    "threads": "load(folder, threads=...)", "n_threads": "load(folder, threads=...)",
    "prompts": "the prompts in a list, as the first argument", "input_ids": "the ids as the first argument",
    "inputs": "the prompt as the first argument", "text": "the prompt as the first argument",
}  # fmt: skip


def resolved(
    function: str,
    options: Mapping[str, Any],
    surplus: Sequence[Any] = (),
    more: Sequence[str] = (),
    kind: type = Options,
) -> dict[str, Any]:
    """All options of a call, those not given and those given as None by their defaults.

    Parameters
    ----------
    function : str
        what its caller calls it
    options : Mapping[str, Any]
    surplus : Sequence[Any], default ()
        what was given by position beside the prompt
    more : Sequence[str], default ()
        names that this function knows beside
    kind : type, default Options
        which options it has: a TypedDict

    Raises
    ------
    ArgumentError
        for a name that is no option, saying which one may have been meant
    """
    if surplus:
        raise ArgumentError(
            f"{function}() takes one prompt by position and options by name, such as max_tokens=8; got {short(surplus[0])} "
            "beside it.  Several prompts go in a list"
        )
    for name in options:
        if name not in kind.__annotations__:
            known = [each for each in DEFAULTS if each in kind.__annotations__]
            raise ArgumentError(f"{function}() has no option {short(name)}{_meant(name, (*known, *more))}")
    return DEFAULTS | {name: value for name, value in options.items() if value is not None}  # type: ignore[return-value]


def _meant(name: str, known: Sequence[str]) -> str:
    word = name.lower().replace("-", "_")[:60]
    found = word if word in known else SYNONYMS.get(word)
    if found is None:
        import difflib

        near = difflib.get_close_matches(word, [*known, *SYNONYMS], n=1, cutoff=0.7)
        found = SYNONYMS.get(near[0], near[0]) if near else None
    option = (found or "").partition("=")[0]
    if option in DEFAULTS and option not in known:  # another function's
        found = None
    return f"; there are {', '.join(known)}" if found is None else f": did you mean {found}?"


def signed(function: F, kind: type = Options) -> F:
    """Give a function that takes `**options` the signature with each option by name, for `help()` and editors.

    Parameters
    ----------
    function : F
    kind : type, default Options
        as of `resolved`
    """
    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    types = {name: getattr(each, "__forward_arg__", each) for name, each in kind.__annotations__.items()}
    named = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=types[name])
        for name, default in DEFAULTS.items()
        if name in types
    ]
    function.__signature__ = signature.replace(parameters=[*own, *named])  # type: ignore[attr-defined]
    return function
