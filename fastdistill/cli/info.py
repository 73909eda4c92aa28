"""info: what this machine runs, and what a model is and takes, without loading it."""

from __future__ import annotations

import argparse
import json
import math
import platform
from bisect import bisect_right
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fastdistill import __version__
from fastdistill.cli.terminal import MODEL_HELP, add_command, megabytes
from fastdistill.errors import UnsupportedError
from fastdistill.fetch import find_folder
from fastdistill.messages import listed, printable

if TYPE_CHECKING:
    from fastdistill.models.plan import Plan

_INFO = """\
  fastdistill info
  fastdistill info smollm2-135m-instruct --capacity 2048
  fastdistill info listops-mdlm
  fastdistill info all-minilm-l6-v2
  FASTDISTILL_ISA=avx2 fastdistill info --json

"weights are multiplied by" names what runs each format: a level, its instruction, outputs x rows of a register tile.
Of a model only the config and the headers of its files are read; where it cannot be loaded, why is said, and the status is 1.
"""
_SCORES = {
    "softmax": "probabilities that sum to 1",
    "sigmoid": "each by itself between 0 and 1",
    "": "scores as the model gives them",
}
_PACKAGES = ("numpy", "cffi", "tokenizers")
_MAX_ROWS = 128  # of a session, where nothing else is asked for
_TEXT = 40_000_000  # bytes that a tokenizer of 49,152 tokens and its library take beside


def add_commands(commands: Any) -> None:
    parser = add_command(commands, "info", run_info, "say what this machine runs, and what a model is and takes", _INFO)
    parser.add_argument("model", metavar="MODEL", nargs="?", help=MODEL_HELP)
    parser.add_argument(
        "--capacity",
        type=int,
        metavar="N",
        help="size a session of N tokens, or a pass of an encoder (default: the context; as many as share a pass)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run_info(arguments: argparse.Namespace) -> None:
    facts = machine_facts()
    refused: UnsupportedError | None = None
    if arguments.model is not None:
        folder = find_folder(arguments.model)
        try:
            facts["model"] = model_facts(folder, arguments.capacity)
        except UnsupportedError as error:
            refused, facts["model"] = error, {"folder": str(folder), "unsupported": str(error)} | stored_facts(folder)
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        print(_machine_text(facts))
        if arguments.model is not None:
            print("\n" + printable((_model_text if refused is None else _stored_text)(facts["model"])))
    if refused is not None:
        raise refused


def machine_facts() -> dict[str, Any]:
    from fastdistill import kernels
    from fastdistill.kernels.forward.linear import FORMATS
    from fastdistill.models.families import DEFAULTS
    from fastdistill.ops import OPS

    exported = {name: getattr(getattr(kernels, name), "__module__", "") for name in kernels.__all__}
    names = [
        *OPS,
        *(name for name, home in exported.items() if home.count(".") == 3 and home.endswith(f".{name}")),
    ]
    return {
        "version": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "levels": list(kernels.isa_levels()),
        "level": kernels.isa(),
        "threads": kernels.default_threads(),
        "kernels": dict.fromkeys(names, kernels.isa()),  # every level has every kernel
        "weight_kernels": {format: kernels.kernel_name(format) for format in FORMATS},
        "families": sorted(DEFAULTS, key=str.lower),
    }


def _version(package: str) -> str | None:
    """None where it is not there: tokens alone do without `tokenizers`."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def model_facts(folder: Path, capacity: int | None) -> dict[str, Any]:
    """What a model folder holds, and the bytes that it and one session of it take, or one pass of an encoder that keeps nothing."""
    from fastdistill.arguments import check_integer
    from fastdistill.checkpoint import open_checkpoint
    from fastdistill.checkpoint.config import said_of_texts
    from fastdistill.kernels.boundary import lib
    from fastdistill.kernels.forward.linear import FORMATS
    from fastdistill.models import plan_of
    from fastdistill.ops import CROSS
    from fastdistill.platform import available_memory
    from fastdistill.runtime.encode import ROWS
    from fastdistill.runtime.kv_cache import PAGE, KVCache
    from fastdistill.runtime.native_executor import NativeExecutor
    from fastdistill.runtime.pool import executor_rows
    from fastdistill.runtime.session import POSITION_LIMIT
    from fastdistill.tasks import search_of
    from fastdistill.text.tokenizer_config import mask_token_id

    with open_checkpoint(folder) as checkpoint:
        plan = plan_of(checkpoint)
        said = said_of_texts(checkpoint.config, checkpoint.generation_config)
        search = None if plan.start_token is None else search_of(said)
        used = {name: checkpoint.tensors[name] for name in plan.stored}
        stored = plan.formats({name: tensor.format for name, tensor in used.items()})
        formats = {name: found if len(plan.weights[name].shape) > 1 else "f32" for name, found in stored.items()}
        counts: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for tensor in used.values():
            counts[tensor.format] += 1
            sizes[tensor.format] += tensor.nbytes
    packed = sum(
        lib.fd_packed_bytes(FORMATS[formats[name]], *weight.shape)
        if len(weight.shape) > 1
        else 4 * 32 * -(-weight.shape[0] // 32)
        for name, weight in plan.weights.items()
    )
    encodes = _encode_facts(folder, plan) if plan.encodes else None
    most = min(plan.max_positions, POSITION_LIMIT)
    if encodes is not None and plan.only_encodes:
        most = max(encodes["max_tokens"], ROWS)
    capacity = check_integer("capacity", most if capacity is None else capacity, 1, most)
    # A forward that fills masks runs the text; one that encodes, the source: here as many tokens as the text may have.
    source = min(plan.source_positions, capacity)
    rows = max(_MAX_ROWS, source) if plan.causal else max(_MAX_ROWS, min(capacity, 1 << 16))
    cache = "f32" if "f32" in {formats[name] for name, weight in plan.weights.items() if weight.linear} else "f16"
    # The executor sizes its buffers from the formats alone, and takes no page of them before it runs.
    weightless: Any = SimpleNamespace(formats=formats)
    executor = NativeExecutor(plan, weightless, executor_rows(rows), 1)

    held = KVCache.slot_bytes(plan, cache, [CROSS]) if source else 0  # of a token of the source

    def cached(capacity: int) -> int:
        """Bytes of a session's or a pass's keys and values at most."""
        if plan.only_encodes:
            return KVCache.most_bytes(plan, capacity, 0, cache)
        return KVCache.most_bytes(plan, capacity, rows, cache) + held * -(-min(source, capacity) // PAGE) * PAGE

    def taken(capacity: int) -> int:
        """Bytes that a process of such a session or pass takes beyond this one."""
        return packed + cached(capacity) + executor.nbytes + _TEXT

    hides = plan.encodes and "logits" in plan.outputs  # its tokenizer alone knows what masks are
    mask = mask_token_id(folder, plan.vocab_size) if hides else plan.mask_token
    available = available_memory()
    fitting = None if available is None else bisect_right(range(capacity + 1), available, key=taken) - 1
    memory = {
        "capacity": capacity,
        "max_rows": rows,
        "weights_bytes": packed,
        "cache_format": cache,
        "cache_bytes": cached(capacity),
        "source_token_bytes": held,
        "token_bytes": KVCache.slot_bytes(plan, cache),
        "arena_bytes": executor.nbytes,
        "available_bytes": available,
        "fits": None if fitting is None else fitting == capacity,
        "fitting_capacity": None if fitting is None else max(fitting, 0),
    }
    return {
        "folder": str(folder),
        "architecture": plan.architecture,
        "causal": plan.causal,
        "source_positions": plan.source_positions,
        "search": None if search is None else vars(search),
        "block": plan.block,
        "mask_token": mask,
        "gives": [*plan.outputs],
        "labels": list(plan.labels),
        "mask_spelling": None if mask is None else _spelling(folder, mask),
        "layers": plan.num_layers,
        "windows": dict(Counter(op.constants["window"] for op in plan.ops if "window" in op.constants)),
        "experts": next(
            ([op.constants["top_k"], op.constants["experts"]] for op in plan.ops if op.kind == "route"), None
        ),
        "hidden_size": plan.hidden_size,
        "heads": plan.num_heads,
        "kv_heads": plan.num_kv_heads,
        "head_dim": plan.head_dim,
        "vocab_size": plan.vocab_size,
        "max_positions": plan.max_positions,
        "parameters": sum(math.prod(weight.shape) for weight in plan.weights.values()),
        "formats": {format: {"tensors": counts[format], "bytes": sizes[format]} for format in sorted(counts)},
        "encodes": encodes,
        "session": None if plan.only_encodes else memory,
        "pass": memory if plan.only_encodes else None,
    }


def _encode_facts(folder: Path, plan: Plan) -> dict[str, Any]:
    """How an encoder makes vectors and scores of texts."""
    from fastdistill.encode.settings import read_settings
    from fastdistill.encode.text_encoder import scored_as
    from fastdistill.text.tokenizer import reads_text

    settings = read_settings(folder)
    return {
        "has_text": reads_text(folder),
        "max_tokens": settings.most_tokens(plan.max_positions),
        "lower_case": settings.lower_case,
        "poolings": [*settings.poolings],
        "dense": [[*each.matrix.shape[::-1], each.activation] for each in settings.dense],
        "normalize": settings.normalize,
        "width": settings.width(plan.hidden_size),
        "prompts": [*settings.prompts],
        "default_prompt": settings.default_prompt,
        "scored_as": scored_as(plan) if plan.labels else None,
    }


def stored_facts(folder: Path) -> dict[str, Any]:
    """What a folder that cannot be loaded says it is, and holds."""
    from fastdistill.checkpoint import open_checkpoint

    with open_checkpoint(folder) as checkpoint:
        counts = Counter(tensor.format for tensor in checkpoint.tensors.values())
        sizes: Counter[str] = Counter()
        for tensor in checkpoint.tensors.values():
            sizes[tensor.format] += tensor.nbytes
        model_type = checkpoint.config.string("model_type", default=None)
    return {
        "model_type": model_type,
        "formats": {format: {"tensors": counts[format], "bytes": sizes[format]} for format in sorted(counts)},
    }


def _spelling(folder: Path, token: int) -> str | None:
    """How the vocabulary spells a token; None without one."""
    from fastdistill.text.tokenizer import Tokenizer, reads_text

    return Tokenizer(folder).token(token) if reads_text(folder) else None


def _kind(model: dict[str, Any]) -> str:
    if model["source_positions"]:
        searched = (
            "" if model["search"] is None else "; by default the best of {num_beams} beams".format(**model["search"])
        )
        return f"encoder-decoder: writes of a source of up to {model['source_positions']:,} tokens{searched}"
    if model["causal"]:
        return "causal: predicts the next token"
    if model["labels"]:
        return f"classifier: {listed(model['labels'])}; {_SCORES[model['encodes']['scored_as']]}"
    spelt = "" if model["mask_spelling"] is None else f" ({model['mask_spelling']})"
    if model["encodes"]:
        masks = "" if model["mask_token"] is None else f", token {model['mask_token']}{spelt}"
        return "encoder: makes vectors of texts" + f", and says what masks hide{masks}" * ("logits" in model["gives"])
    order = f"in blocks of {model['block']}" if model["block"] else "in any order"
    return f"masked diffusion: fills masks, token {model['mask_token']}{spelt}, {order}"


def _machine_text(facts: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {number or '(not installed)'}" for name, number in facts["packages"].items())
    weights = "\n".join(f"  {format:11}{name}" for format, name in facts["weight_kernels"].items())
    return f"""\
fastdistill  {facts["version"]}; Python {facts["python"]}, {packages}
levels       {", ".join(facts["levels"])}
selected     {facts["level"]} (FASTDISTILL_ISA selects another)
threads      {facts["threads"]} (FASTDISTILL_THREADS sets them)
kernels      at {facts["level"]}: {", ".join(facts["kernels"])}
weights      are multiplied by
{weights}
models       {", ".join(facts["families"])} (model_type of config.json)"""


def _formats_text(model: dict[str, Any]) -> str:
    return "\n".join(
        f"  {name:10} {megabytes(entry['bytes'])} in {entry['tensors']} tensor{'s' * (entry['tensors'] > 1)}"
        for name, entry in model["formats"].items()
    )


def _stored_text(model: dict[str, Any]) -> str:
    return f"""\
model        {model["folder"]}
model_type   {model["model_type"]}
stored
{_formats_text(model)}
loads        no: {model["unsupported"]}"""


def _layers_text(model: dict[str, Any]) -> str:
    """What not all layers of a plain model have."""
    seen = "{:,} positions back" if model["causal"] else "{:,} positions to either side, their own counted"
    windows = [f"; {count} see {seen.format(window)}" for window, count in model["windows"].items()]
    experts = "; {} of {} experts a token".format(*model["experts"]) if model["experts"] else ""
    return "".join(windows) + experts


def _texts_text(model: dict[str, Any]) -> str:
    """How long texts may be, and of an encoder what it makes of them."""
    found, positions = model["encodes"], f"{model['max_positions']:,}"
    if found is None:
        return f"context      {positions} tokens{' of what is written' * bool(model['source_positions'])}"
    most = f"{found['max_tokens']:,} tokens at most, special ones included"
    longer = f"; the model has positions for {positions}" if found["max_tokens"] < model["max_positions"] else ""
    texts = f"{most}{longer}{'; put into lower case' * found['lower_case']}"
    made = [f"{' and '.join(found['poolings'])} of a text's rows"]
    made += [f"a linear from {inputs:,} to {outputs:,}, {name}" for inputs, outputs, name in found["dense"]]
    lines = [
        f"texts        {texts if found['has_text'] else 'not read: tokenizer.json is missing'}",
        f"vectors      {found['width']:,} numbers: {', '.join(made)}{', of length 1' * found['normalize']}",
    ]
    if found["prompts"]:
        default = found["default_prompt"]
        lines.append(
            f"prompts      {listed(found['prompts'])}; {'none' if default is None else default} where the caller names none"
        )
    return "\n".join(lines)


def _fits_text(session: dict[str, Any], unit: str) -> str:
    if session["fits"] is None:
        return "unknown: this system does not say what memory is available"
    said = f"{megabytes(session['available_bytes'])} are available, and text takes {megabytes(_TEXT)} beside"
    if session["fits"]:
        return f"yes: {said}"
    most = session["fitting_capacity"]
    return f"no: {said}; " + (f"a {unit} of {most:,} tokens does: --capacity {most}" if most else f"no {unit} does")


def _model_text(model: dict[str, Any]) -> str:
    return f"""\
model        {model["folder"]}
loads        yes
architecture {model["architecture"]}: {model["layers"]} layers, width {model["hidden_size"]}{_layers_text(model)}
kind         {_kind(model)}
heads        {model["heads"]} for queries, {model["kv_heads"]} for keys, of {model["head_dim"]}
vocabulary   {model["vocab_size"]:,} tokens
{_texts_text(model)}
parameters   {model["parameters"]:,}
stored
{_formats_text(model)}
{memory_text(model)}"""


def memory_text(model: dict[str, Any]) -> str:
    """What a model takes in one session or one pass, of its model_facts."""
    unit, units = ("pass", "passes") if model["session"] is None else ("session", "sessions")
    session = model[unit]
    source = session["source_token_bytes"]
    of_source = f", and {source / 1e3:,.1f} of the source" if source else ""
    total = session["weights_bytes"] + session["cache_bytes"] + session["arena_bytes"]
    return f"""\
memory       {megabytes(total)} at most, in a {unit} of {session["capacity"]:,} tokens
  weights    {megabytes(session["weights_bytes"])}, shared by all {units}
  cache      {megabytes(session["cache_bytes"])}, {session["cache_format"]}, taken as it fills: \
{session["token_bytes"] / 1e3:,.1f} kB a token{of_source}
  arena      {megabytes(session["arena_bytes"])}, taken as it is used: forwards of up to {session["max_rows"]} rows
fits         {_fits_text(session, unit)}"""
