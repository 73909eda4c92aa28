"""fill: masks within texts become tokens."""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from fastdistill.cli import unmasking
from fastdistill.cli.encode import single_texts
from fastdistill.cli.options import check_goes_with, given
from fastdistill.cli.terminal import FORMATS, MODEL_HELP, add_command, say, visible
from fastdistill.errors import ArgumentError, FastDistillError, PartialError

if TYPE_CHECKING:
    from fastdistill.api import Model
    from fastdistill.decode import Generation
    from fastdistill.decode.generation import TokenLogProbs

_FILL = """\
  fastdistill fill ./bert "Paris is the [MASK] of France." --top-k 5
  fastdistill fill ./roberta --file texts.txt > filled.txt
  fastdistill fill ./bert --file texts.jsonl --json --top-k 3
  fastdistill fill listops-mdlm "<|bos|> sort : dog ant cow bat _ _ _ _ | _ _ -> ant <|mask|> cow <|mask|>"

For models that see a text from both sides: BERT and its kin with a masked head, and masked diffusion models. A mask is the model's
mask token, spelt as `fastdistill info MODEL` says; nothing else of a text changes. Each text is printed with its masks filled, as its
tokens spell it. --file and stdin hold a text a line, as `fastdistill embed` reads them.

Masks may be filled one after another, the surest first, so that each is seen by the next: --commit schedule. --max-steps 1 takes the
likeliest token of every mask from one forward, as fill-mask pipelines do.

--top-k K prints a line for each mask and token under the text: the mask's number, the token's probability in the forward that filled
the mask, the token. --json prints a line of JSON a text: {"text": ..., "filled": ..., "masks": [{"id": ..., "token": ..., "score": ...,
"top": [{"id": ..., "token": ..., "score": ...}, ...]}, ...]}.
"""


def add_commands(commands: Any) -> None:
    parser = add_command(commands, "fill", run_fill, "fill masks within texts", _FILL)
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("text", metavar="TEXT", nargs="?", help="a text with masks (default: what stdin holds)")
    parser.add_argument("--file", metavar="FILE", help="texts, in place of TEXT; -: stdin")
    parser.add_argument("--top-k", type=int, metavar="K", help="show the K likeliest tokens of each mask")
    parser.add_argument("--json", action="store_true", help="print a line of JSON a text")
    parser.add_argument("--format", choices=FORMATS, help="convert the model's linears (default: as stored)")
    parser.add_argument("--threads", type=int, metavar="N", help="of every pass (default: all)")
    group = parser.add_argument_group("how tokens are chosen")
    group.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="0 takes the likeliest token, 1 draws as the model says (default: 0)",
    )
    group.add_argument("--seed", type=int, metavar="N", help="of the draw (default: 0)")
    unmasking.add_unmasking_options(parser, within=True)


def run_fill(arguments: argparse.Namespace) -> None:
    if arguments.text is not None and arguments.file is not None:
        raise ArgumentError("--file is in place of TEXT: give one of them")
    if arguments.top_k is not None:
        from fastdistill.arguments import check_integer

        check_integer("--top-k", arguments.top_k, 1, 1000)
    chosen = given(**vars(arguments)) | {"decoder": "unmask", "commit": unmasking.rule_name(arguments)}
    check_goes_with(arguments, unmasking.GOES_WITH, unmasking.DEFAULTS | chosen)
    decoder = unmasking.unmasking(arguments)
    texts = [arguments.text] if arguments.text is not None else single_texts(arguments.file or "-")
    from fastdistill.api import load
    from fastdistill.decode.engine import MOST_TEXTS
    from fastdistill.encode.progress import texts_bar

    model = load(arguments.model, arguments.format, arguments.threads, text=True)
    asked = arguments.top_k or int(arguments.json)
    options = given(temperature=arguments.temperature, seed=arguments.seed, logprobs=asked, decoder=decoder)
    whole = 0
    with texts_bar(sys.stderr.isatty() and not sys.stdout.isatty(), "fill") as progress:
        for start in range(0, len(texts), MOST_TEXTS):
            part = texts[start : start + MOST_TEXTS]
            for text, filled in zip(part, _filled(model, part, start, options), strict=True):
                whole += not filled.tokens
                print(
                    _json(model, text, filled, arguments.top_k or 0) if arguments.json else _shown(model, filled, asked)
                )
            if progress is not None:
                progress(start + len(part), len(texts))
    if whole and model.plan.mask_token is not None:
        mask = model.tokenizer.token(model.plan.mask_token)
        say(f"({whole} of {len(texts)} texts: nothing to fill, as there is no {mask}, the model's mask token)")


def _filled(model: Model, texts: list[str], start: int, options: dict[str, Any]) -> list[Generation]:
    try:
        return model.fill(texts, **options)
    except PartialError as error:
        number, first = next(iter(error.errors.items()))
        raise FastDistillError(f"text {start + number + 1}: {first}") from None


def _shown(model: Model, filled: Generation, count: int) -> str:
    """The text, and under it what was likeliest of each mask."""
    lines = [visible(filled.text)]
    for number, mask in enumerate(filled.logprobs or (), 1):
        for each in _top(model, mask, count):
            lines.append(f"{number:4}  {each['score']:8.4f}  {visible(each['token'])}")
    return "\n".join(lines)


def _json(model: Model, text: str, filled: Generation, count: int) -> str:
    masks = [
        _scored(model, mask.token, mask.log_prob) | {"top": _top(model, mask, count)} for mask in filled.logprobs or ()
    ]
    return json.dumps({"text": text, "filled": filled.text, "masks": masks}, ensure_ascii=False)


def _top(model: Model, mask: TokenLogProbs, count: int) -> list[dict[str, Any]]:
    return [_scored(model, token, log_prob) for token, log_prob in mask.top[:count]]


def _scored(model: Model, token: int, log_prob: float) -> dict[str, Any]:
    """How a token is called, spelt, and how probable it is."""
    spelt = model.tokenizer.decode([token], skip_special=False).strip()
    return {"id": token, "token": spelt, "score": math.exp(log_prob)}
