"""demo, generate: commands that write one text; what they share with chat."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdistill.cli.accepted import colours
from fastdistill.cli.decoders import add_decoder_options, decoding, spelling, trace, watching
from fastdistill.cli.filling import replay
from fastdistill.cli.grammars import add_grammar_options, grammar_options
from fastdistill.cli.guessing import by_depth, guess_statistics
from fastdistill.cli.options import given
from fastdistill.cli.searching import search_facts, search_statistics
from fastdistill.cli.templates import add_template_options, template_options
from fastdistill.cli.terminal import FORMATS, MODEL_HELP, ProgressBar, add_command, megabytes, say, show, visible
from fastdistill.cli.unmasking import fill_statistics, filled
from fastdistill.errors import ArgumentError, FetchError
from fastdistill.fetch import fetch, find_folder
from fastdistill.messages import short
from fastdistill.platform import await_writer, open_at_once

if TYPE_CHECKING:
    from fastdistill.api import Model
    from fastdistill.decode import Generation
    from fastdistill.runtime import Profile

_DEMO = """\
  fastdistill demo
  fastdistill demo --prompt "Give me three tips for a good night's sleep."

First a masked diffusion model that comes with the package, listops-mdlm, fills in answers, several words a forward; in a
terminal these are shown slowly. Then SmolLM2 answers the prompt; where it cannot be fetched, that is said and left out.
"""
_GENERATE = """\
  fastdistill generate smollm2-135m-instruct "The capital of France is" --max-tokens 8
  fastdistill generate smollm2-135m-instruct --chat "What is gravity?" --temperature 0.7 --top-p 0.9 --seed 1
  fastdistill generate ./model --prompt-file story.txt --stop "THE END" --stats
  fastdistill generate ./model "Once upon a time" --profile
  echo "def fibonacci(n):" | fastdistill generate ./model - --json
  fastdistill generate ./model --chat --prompt-file edit.txt --decoder auto --stats
  fastdistill generate ./model --chat "What is the weather in Rome?" --tools weather.json --template-option enable_thinking=false
  fastdistill generate ./model "1, 2, 3, 4," --decoder speculative --show-accepted
  fastdistill generate ./model "def fibonacci(n):" --decoder jacobi --block 8 --trace
  fastdistill generate ./model "def fibonacci(n):" --decoder lookahead --window 5 --stats
  fastdistill generate ./model "Once upon a time" --decoder speculative --drafter model --draft-format q4 --rule rejection
  fastdistill generate ./model "Translate to French: a river" --num-beams 4 --json
  fastdistill generate ./model --chat "Who wrote Hamlet, and when?" --json-schema answer.json --decoder auto
  fastdistill generate ./model --chat "Is the sky green?" --choice yes --choice no
  fastdistill generate listops-mdlm "<|bos|> sort : dog ant cat _ _ _ _ _ | _ _ ->" --stats
  fastdistill generate listops-mdlm "<|bos|> reverse : dog ant cat _ _ _ _ _ | _ _ ->" --commit schedule:5 --trace
  fastdistill generate listops-mdlm "<|bos|> insert : cow crab elk _ _ _ _ _ | slug 3 ->" --commit factor:1 --block-length 5

The same seed gives the same text. Ctrl-C stops.

Where tokens are guessed, --stats says how many forwards gave 1 token, 2, ..., as in "tokens a forward: 7 x 1, 2 x 3", and ends
with a table: of the first, second, ... guess of a forward, how many were asked, those before them being right, and how many of
these were right. --json has both as "guesses". Recycled guesses are those from a pool of n-grams.

Where masks are filled, --stats says how many positions in how many forwards; those behind the text's end count too. --json has
these as "committed" and "forwards", and with --trace what each forward filled, as "steps".

Where a text was searched for, --stats says its score and those of the others that the search has ended with. --json has these as
"score" and "runners_up", each with its text.

Held to a schema, a pattern or a grammar, every decoder writes what plain decoding writes under it. A text that --max-tokens cuts is
only the beginning of such a text: --json says so as "finish_reason": "length".

--profile shows two tables: the prompt, which arithmetic limits, and what follows, which the memory's bandwidth limits.
A line is all stages of one name, such as "linear gate,up". MB counts weights once a forward, and the keys and values of the
context once a layer; activations are left out. A stage's time includes waiting for its slowest thread; "rest" is the time
outside the model: Python, drawing tokens, making text. The bandwidth is measured afterwards, on 128 MB.
"""

# Sampling options, as `Model.generate` calls them: its default, placeholder, help.
_SAMPLING: dict[str, tuple[float, str, str]] = {
    "temperature": (0.0, "T", "0 takes the likeliest token, 1 draws as the model says"),
    "top_k": (0, "K", "only the K likeliest; 0: all"),
    "top_p": (1.0, "P", "only the likeliest that make up the probability P"),
    "min_p": (0.0, "P", "only those at least P times as likely as the likeliest"),
    "repetition_penalty": (1.0, "R", "above 1 discourages tokens that prompt or answer have"),
    "frequency_penalty": (0.0, "F", "above 0 discourages tokens for each time that the answer has them; -2 to 2"),
    "presence_penalty": (0.0, "P", "above 0 discourages tokens that the answer has; -2 to 2"),
    "no_repeat_ngram_size": (
        0,
        "N",
        "no N tokens in a row that prompt or answer hold already; a model with an encoder may have its own",
    ),
    "seed": (0, "N", "of the draw"),
}
_MOST_BYTES = 1 << 24  # of a prompt
_EMBEDDED = "listops-mdlm"
_EMBEDDED_ABOUT = """\
listops-mdlm, a masked diffusion model that comes with the package, fills in the ten positions behind "->". A task has eight
places and, behind "|", two more for its arguments; "_" is a place that it does not use.
"""
_EMBEDDED_PROMPTS = (
    "<|bos|> sort : dog ant yak cat bee _ _ _ | _ _ ->",
    "<|bos|> add : 3 5 9 + 9 5 9 _ | _ _ ->",
    "<|bos|> shuffle : cow hen owl pig _ _ _ _ | _ _ ->",
)
_DEMO_MODEL = "smollm2-135m-instruct"
_DEMO_PROMPT = "Explain in two sentences why the sky is blue."


def add_commands(commands: Any) -> None:
    parser = add_command(
        commands, "demo", run_demo, "let small models answer, the second one fetched if need be", _DEMO
    )
    parser.add_argument("--prompt", default=_DEMO_PROMPT, help="what to ask SmolLM2 (default: %(default)r)")
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="most new tokens (default: 256)")
    _add_threads(parser)

    parser = add_command(commands, "generate", run_generate, "write on from a prompt", _GENERATE)
    add_model_options(parser)
    parser.add_argument("prompt", metavar="PROMPT", help="what to write on from; -: what stdin holds")
    parser.add_argument("--prompt-file", action="store_true", help="PROMPT is a file that holds it")
    style = parser.add_mutually_exclusive_group()
    style.add_argument("--chat", action="store_true", help="PROMPT is a message, put into the model's chat template")
    style.add_argument("--raw", action="store_false", dest="chat", help="PROMPT is how the text begins (default)")
    add_template_options(parser)
    add_writing_options(parser, max_tokens=128)
    parser.add_argument(
        "--trace-png",
        metavar="FILE.png",
        help="of unmask: a picture of who was filled when, a line a position, a column a forward (extra `demo`)",
    )
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before TEXT; may be repeated")
    parser.add_argument(
        "--profile",
        action="store_true",
        help="say on stderr where the time went, and how much of the memory's bandwidth",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, with the text, tokens and timings")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--format", choices=FORMATS, help="convert the weights on loading (default: as stored)")
    _add_threads(parser)


def add_writing_options(parser: argparse.ArgumentParser, max_tokens: int, **defaults: str) -> None:
    """Add the options of how a text is written.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    max_tokens : int
    **defaults : str
        what is said of sampling options whose default is not that of `Model.generate`
    """
    parser.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help=f"most new tokens, or masks to fill (default: what the model's generation_config.json says, else {max_tokens})",
    )
    parser.add_argument("--stats", action="store_true", help="say on stderr how fast it went")
    group = parser.add_argument_group("how tokens are chosen")
    for name, (default, placeholder, help) in _SAMPLING.items():
        flag = "--" + name.replace("_", "-")
        said = defaults.get(name, default)
        group.add_argument(flag, type=type(default), metavar=placeholder, help=f"{help} (default: {said})")
    add_grammar_options(parser)
    add_decoder_options(parser)


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=int, metavar="N", help="default: the CPUs that this process may use")


def sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    """The sampling options that were given, as `Model.generate` takes them."""
    return given(**{name: getattr(arguments, name) for name in _SAMPLING})


def load_model(folder: Path, format: str | None, threads: int | None) -> tuple[Model, float]:
    """The model with its tokenizer, and the seconds that took."""
    started = time.perf_counter()
    from fastdistill.api import load

    model = load(folder, format, threads, text=True)
    return model, time.perf_counter() - started


@dataclass(frozen=True)
class Answer:
    """A text and when it came."""

    generation: Generation
    first: float | None  # seconds to the first piece of text
    seconds: float


def write_answer(model: Model, prompt: str | list[int], show: Callable[[str], None], **options: Any) -> Answer:
    """Generate, showing each piece as it becomes certain."""
    started, first = time.perf_counter(), None
    stream = model.stream(prompt, **options)
    while True:
        try:
            piece = next(stream)
        except StopIteration as end:
            return Answer(end.value, first, time.perf_counter() - started)
        first = first or time.perf_counter() - started
        show(piece)


def statistics(model: Model, answer: Answer) -> str:
    """What an answer cost, in two lines; in a few more, what became of the guesses or masks."""
    stats, reason = answer.generation.stats, answer.generation.finish_reason
    read = stats.prompt_tokens - stats.reused_tokens
    rate = f", {read / stats.prefill_seconds:,.1f} tokens/s" if stats.prefill_seconds else ""
    reused = f" ({stats.reused_tokens} more were in the cache)" if stats.reused_tokens else ""
    first = f"; first text after {answer.first:.3f} s" if answer.first is not None else ""
    reading = f"in {stats.prefill_seconds:.3f} s{rate}{reused}"
    if stats.committed and not stats.prefill_seconds:
        reading = "run with the answer, in each of its forwards"
    return (
        f"prompt  {read} tokens {reading}\n"
        f"answer  {stats.new_tokens} tokens in {stats.decode_seconds:.3f} s, {stats.tokens_per_second:,.1f} tokens/s"
        f"{first}; ended by {_ENDS[reason]}"
        f"{guess_statistics(answer.generation)}{fill_statistics(answer.generation)}{search_statistics(answer.generation)}"
    )


_ENDS = {"stop": "an end of text", "length": "--max-tokens", "capacity": "a full context"}


def machine(model: Model, loading: float) -> str:
    """What ran, in one line."""
    from fastdistill.kernels import isa

    weights = model.network.weights
    formats = sorted({weights.formats[name] for name, weight in model.plan.weights.items() if weight.linear})
    return (
        f"model   {', '.join(formats)}, {megabytes(weights.nbytes)}, loaded in {loading:.3f} s; "
        f"{isa()}, {model.threads} thread{'s' if model.threads > 1 else ''}"
    )


def run_demo(arguments: argparse.Namespace) -> None:
    _fill_masks(arguments.threads)
    try:
        with ProgressBar() as bar:
            folder = fetch(_DEMO_MODEL, bar)
    except FetchError as error:
        say(f"{_DEMO_MODEL} is left out, since it could not be fetched: {error}")
        return
    model, loading = load_model(folder, None, arguments.threads)
    say(f"> {arguments.prompt}")
    prompt = model.chat_prompt([{"role": "user", "content": arguments.prompt}])
    answer = write_answer(model, prompt, lambda piece: show(visible(piece)), max_tokens=arguments.max_tokens)
    print()
    say(f"\n{statistics(model, answer)}\n{machine(model, loading)}")


def _fill_masks(threads: int | None) -> None:
    """Some tasks of the embedded model, at their own speed; a terminal then shows slowly what has happened."""
    from fastdistill.decode import Unmask

    model, loading = load_model(find_folder(_EMBEDDED), None, threads)
    decoder = Unmask(trace=True)
    say(_EMBEDDED_ABOUT)
    model.generate(_EMBEDDED_PROMPTS[0], decoder=decoder)  # a process's first forward starts its threads
    for prompt in _EMBEDDED_PROMPTS:
        say(f"> {prompt}")
        # Drawn, since a shuffle has many right answers; the others have one, and the model is sure of it.
        options = dict(decoder=decoder, temperature=1.0, seed=1)
        generation = write_answer(model, prompt, lambda piece: None, **options).generation
        if colours() and generation.trace is not None:
            replay(generation.trace, model.tokenizer, model.tokenizer.encode(prompt))
        show(f"{generation.text}\n")
        say(f"{filled(generation)}\n")
    say(f"{machine(model, loading)}\n")


def run_generate(arguments: argparse.Namespace) -> None:
    if arguments.json and arguments.show_accepted:
        raise ArgumentError("--show-accepted colours a text: it does not go with --json")
    if arguments.json and arguments.show_filling:
        raise ArgumentError("--show-filling draws a text: it does not go with --json")
    if arguments.trace_png is not None:
        from fastdistill.show.trace_png import check_png

        check_png(arguments.trace_png)  # before the model runs
    template = template_options(arguments, arguments.chat)
    text, decoder_of, grammar_of = _prompt(arguments), decoding(arguments), grammar_options(arguments)
    model, loading = load_model(find_folder(arguments.model), arguments.format, arguments.threads)
    options = sampling(arguments) | {"max_tokens": arguments.max_tokens, "stop": arguments.stop} | grammar_of(model)
    decoder = decoder_of(model, options)
    prompt = model.chat_prompt([{"role": "user", "content": text}], **template) if arguments.chat else text
    from fastdistill.runtime import Profile

    profile = Profile() if arguments.profile else None
    with profile or nullcontext():
        watcher = watching(arguments, decoder, model.tokenizer)
        if watcher is not None:
            answer = write_answer(
                model, prompt, lambda piece: show(watcher.coloured(visible(piece))), decoder=watcher, **options
            )
            show(watcher.rest(answer.generation))
        else:
            shown = (lambda piece: None) if arguments.json else (lambda piece: show(visible(piece)))
            answer = write_answer(model, prompt, shown, decoder=decoder, **options)
    print(_json(model, answer, loading, profile) if arguments.json else "")
    if answer.generation.finish_reason == "capacity":
        say(f"(cut: the context of {model.plan.max_positions} tokens is full)")
    if arguments.stats:
        say(f"{statistics(model, answer)}\n{machine(model, loading)}")
    if arguments.trace:
        say(trace(answer.generation, model.tokenizer))
    if arguments.trace_png is not None and answer.generation.trace is not None:
        title = f"{model.folder.name}: {filled(answer.generation)}"
        from fastdistill.show import trace_png

        trace_png(answer.generation.trace, arguments.trace_png, label=spelling(model.tokenizer), title=title)
    if profile is not None and not arguments.json:
        say(str(profile))


def _prompt(arguments: argparse.Namespace) -> str:
    """The prompt as given, or stdin's or a file's without its last line end."""
    if arguments.prompt == "-":
        if sys.stdin.isatty():
            say("(the prompt, as typed here; Ctrl-D ends it)")
        name, data = "stdin", sys.stdin.buffer.read(_MOST_BYTES + 1)
    elif arguments.prompt_file:
        name, data = short(arguments.prompt), _read(arguments.prompt)
    else:
        return str(arguments.prompt)
    if len(data) > _MOST_BYTES:
        raise ArgumentError(f"the prompt in {name} has more than {megabytes(_MOST_BYTES)}: no context holds that")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ArgumentError(f"the prompt in {name} is not UTF-8: {error}") from None
    return text.removesuffix("\n").removesuffix("\r")


def _read(path: str) -> bytes:
    """The beginning of a file, of a pipe too: what is in it, even where that never ends."""
    try:
        with open(open_at_once(path), "rb") as file:
            await_writer(file.fileno(), lambda: say(f"(waiting for somebody to write into {path}; Ctrl-C ends that)"))
            return file.read(_MOST_BYTES + 1)
    except ValueError as error:  # a name that no file can have
        raise ArgumentError(f"--prompt-file {short(path)}: {error}") from None


def _guesses(generation: Generation) -> dict[str, Any]:
    return by_depth(generation.rounds) | {"tokens_of_rounds": generation.tokens_of_rounds}


def _steps(generation: Generation) -> list[dict[str, Any]]:
    """What each forward filled, and masked again."""
    assert generation.trace is not None
    return [
        {
            "places": step.places.tolist(),
            "tokens": step.tokens.tolist(),
            "confidence": step.confidence.tolist(),
            "remasked": step.remasked.tolist(),
        }
        for step in generation.trace.steps
    ]


def _json(model: Model, answer: Answer, loading: float, profile: Profile | None) -> str:
    from fastdistill.kernels import isa

    generation, stats = answer.generation, answer.generation.stats
    rates = {"tokens_per_second": stats.tokens_per_second, "tokens_per_forward": stats.tokens_per_forward}
    return json.dumps(
        {
            "text": generation.text,
            "tokens": generation.tokens,
            "finish_reason": generation.finish_reason,
            "stats": dataclasses.asdict(stats) | rates,
            "seconds": {"load": loading, "first_text": answer.first, "generate": answer.seconds},
            "level": isa(),
            "threads": model.threads,
        }
        | ({"guesses": _guesses(generation)} if generation.rounds else {})
        | ({"steps": _steps(generation)} if generation.trace is not None else {})
        | search_facts(generation)
        | ({} if profile is None else {"profile": profile.facts()})
    )
