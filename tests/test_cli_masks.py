"""The command line over masked diffusion models: options become decoders, answers are drawn while they are filled."""

from __future__ import annotations

import json
import re
import shutil
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.checkpoint import write_checkpoint
from fastdistill.cli import filling, terminal, unmasking
from fastdistill.cli.accepted import PLAIN
from fastdistill.cli.filling import Picture, wrapped
from fastdistill.decode.unmask.decoder import CACHES
from fastdistill.decode.unmask.schedules import KINDS
from fastdistill.embedded import embedded_folder
from fastdistill.models import plan_for
from tests import small_models
from tests.command_line import Terminal, start
from tests.test_cli import write_model
from tests.text.tokenizers_made_here import byte_level

LISTOPS = "listops-mdlm"
SORT = "<|bos|> sort : dog ant cat _ _ _ _ _ | _ _ ->"
SHUFFLE = "<|bos|> shuffle : cow hen owl pig _ _ _ _ | _ _ ->"
MASK, END = 1, 3  # of the embedded model
TEMPLATE = "<|bos|> {{ messages[-1].content }} | _ _ ->"


@pytest.fixture(scope="module")
def listops():
    return fd.load(LISTOPS)


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """A masked diffusion model with a byte-level tokenizer, that fills long answers with anything."""
    tokenizer = byte_level()
    size = len(tokenizer["model"]["vocab"])
    config = small_models.llada_config(vocab_size=size + 1, mask_token_id=size, max_sequence_length=1 << 12)
    files = {"tokenizer.json": json.dumps(tokenizer).encode()}
    folder = tmp_path_factory.mktemp("models") / "masked"
    write_checkpoint(folder, config.raw, small_models.tensors(plan_for(config), seed=3).values(), files)
    return folder


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "causal")


@pytest.fixture(scope="module")
def chatting(tmp_path_factory):
    """The embedded model with a chat template."""
    folder = tmp_path_factory.mktemp("models") / "chatting"
    shutil.copytree(embedded_folder(LISTOPS), folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


# --- what is written --------------------------------------------------------------------------------------------------


def test_generate_fills_masks_by_default(run, listops):
    expected = listops.generate(SORT).text
    assert expected == "ant cat dog"
    assert run("generate", LISTOPS, SORT) == (0, expected + "\n", "")
    assert run("generate", LISTOPS, SORT, "--decoder", "unmask", "--show-filling") == (0, expected + "\n", "")


def test_max_tokens_are_the_masks(run, listops):
    said = ["generate", LISTOPS, SORT, "--json", "--max-tokens"]
    assert json.loads(run(*said, 4)[1])["tokens"] == listops.generate(SORT, max_tokens=4).tokens
    assert json.loads(run(*said, 0)[1])["tokens"] == []
    assert json.loads(run(*said[:-1])[1])["stats"]["committed"] == listops.max_new_tokens == 10


def test_names_of_the_command_line_are_those_of_the_package():
    assert unmasking.CACHES == CACHES
    assert set(unmasking._KINDS.values()) == set(KINDS)


@pytest.mark.parametrize(
    ("options", "decoder"),
    [
        ([], fd.Unmask()),
        (["--decoder", "unmask"], fd.Unmask()),
        (["--commit", "threshold"], fd.Unmask(fd.unmask.Threshold())),
        (["--commit", "threshold:0.7"], fd.Unmask(fd.unmask.Threshold(0.7))),
        (["--commit", "adaptive:0.8"], fd.Unmask(fd.unmask.Adaptive(0.8))),
        (["--commit", "factor:2"], fd.Unmask(fd.unmask.Factor(2.0))),
        (["--commit", "entropy:0.25"], fd.Unmask(fd.unmask.EntropyThreshold(0.25))),
        (["--commit", "budget:0.2"], fd.Unmask(fd.unmask.EntropyBudget(0.2))),
        (["--commit", "explore"], fd.Unmask(fd.unmask.Explore())),
        (["--commit", "explore:2", "--block-length", "5"], fd.Unmask(fd.unmask.Explore(2.0), block_length=5)),
        (["--commit", "schedule"], fd.Unmask(fd.unmask.Schedule())),
        (["--commit", "schedule:5", "--drafts", "3"], fd.Unmask(fd.unmask.Schedule(5), drafts=3)),
        (["--commit", "cosine:5"], fd.Unmask(fd.unmask.Schedule(5, kind="cosine"))),
        (["--commit", "time:5"], fd.Unmask(fd.unmask.Schedule(5, kind="time"))),
        (["--commit", "ascending"], fd.Unmask(fd.unmask.Schedule(kind="ascending"))),
        (["--max-steps", "2", "--cache", "dual"], fd.Unmask(max_steps=2, cache="dual")),
        (["--block-length", "5", "--block-causal"], fd.Unmask(block_length=5, attention="block_causal")),
        (["--remask", "remdm", "--trace"], fd.Unmask(remask=fd.unmask.Remdm(), trace=True)),
        (["--remask", "revise"], fd.Unmask(remask=fd.unmask.Revise())),
        (
            ["--remask", "running", "--commit", "schedule:4"],
            fd.Unmask(fd.unmask.Schedule(4), remask=fd.unmask.RunningConfidence()),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_become_decoders_and_their_text(run, listops, monkeypatch, options, decoder):
    seen, stream = [], fd.Model.stream

    def spy(self, prompt, *, decoder, **options):
        seen.append(decoder)
        return stream(self, prompt, decoder=decoder, **options)

    monkeypatch.setattr(fd.Model, "stream", spy)
    code, out, _ = run("generate", LISTOPS, SORT, *options)
    assert (code, seen) == (0, [decoder])
    assert out == listops.generate(SORT, decoder=decoder).text + "\n"


def test_statistics_and_json_say_what_was_filled(run, listops):
    said = ["generate", LISTOPS, SORT, "--commit", "schedule:5"]
    _, out, err = run(*said, "--stats")
    assert out == "ant cat dog\n"
    assert re.search(r"^prompt  15 tokens run with the answer, in each of its forwards$", err, re.MULTILINE)
    assert re.search(r"^filled  10 positions in 5 forwards, \d+\.\d ms; 2\.00 positions a forward$", err, re.MULTILINE)
    _, out, err = run(*said, "--json")
    stats = json.loads(out)["stats"]
    assert err == "" and (stats["forwards"], stats["committed"], stats["tokens_per_forward"]) == (5, 10, 2.0)
    assert stats["decode_seconds"] > 0 and "steps" not in json.loads(out)
    assert "prompt  15 tokens in" in run("generate", LISTOPS, SORT, "--stats", "--block-causal")[2]


def test_the_trace_goes_to_stderr_into_the_json_and_into_a_picture(run, listops, tmp_path):
    said = ["generate", LISTOPS, SORT, "--commit", "schedule:5"]
    trace = listops.generate(SORT, decoder=fd.Unmask(fd.unmask.Schedule(5), trace=True)).trace
    code, out, err = run(*said, "--trace")
    assert (code, out) == (0, "ant cat dog\n")
    assert err == fd.show.trace(trace, label=lambda token: listops.tokenizer.token(token)) + "\n"
    steps = json.loads(run(*said, "--trace", "--json")[1])["steps"]
    assert [step["places"] for step in steps] == [step.places.tolist() for step in trace.steps]
    assert [step["tokens"] for step in steps] == [step.tokens.tolist() for step in trace.steps]
    pytest.importorskip("PIL")
    assert run(*said, "--trace-png", tmp_path / "picture.png") == (0, "ant cat dog\n", "")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    for path, text in (("nowhere/picture.png", "there is no folder"), ("picture.jpg", "a picture is a .png file, got")):
        code, out, err = run(
            "generate", "no-such-model", SORT, "--trace-png", tmp_path / path
        )  # said before anything is loaded
        assert (code, out) == (2, "") and text in err


def test_chat_fills_masks(run, chatting, listops):
    lines = "sort : dog ant cat _ _ _ _ _\nadd : 3 5 9 + 9 5 9 _\n"
    code, out, err = run("chat", chatting, "--stats", "--trace", stdin=lines.encode())
    assert (code, out) == (0, "ant cat dog\n1 3 1 8\n") and "(cut" not in err
    assert (
        len(re.findall("^filled  10 positions in 1 forward, ", err, re.MULTILINE)) == 2
        and err.count("masked again") == 2
    )
    code, out, err = run("chat", LISTOPS, stdin=lines.encode())
    assert (code, out) == (1, "") and "has no chat template" in err


def test_a_chat_has_room_for_forwards_over_all_of_its_text(run, masked, tmp_path):
    shutil.copytree(masked, tmp_path / "masked")
    (tmp_path / "masked" / "chat_template.jinja").write_text("{{ messages[-1].content }}")
    said = ["--max-tokens", 500, "--max-steps", 2]
    code, out, _ = run("chat", tmp_path / "masked", *said, stdin=b"the\n")
    assert code == 0 and out == run("generate", masked, "the", *said)[1]


def test_info_says_what_kind_of_model_it_is(run, causal, masked):
    facts = json.loads(run("info", LISTOPS, "--json")[1])["model"]
    assert (facts["causal"], facts["mask_token"], facts["mask_spelling"]) == (False, 1, "<|mask|>")
    assert "masked diffusion: fills masks, token 1 (<|mask|>), in any order" in run("info", LISTOPS)[1]
    assert "causal: predicts the next token" in run("info", causal)[1]
    said = json.loads(run("info", masked, "--json")[1])["model"]["session"]
    assert said["max_rows"] == said["capacity"] == 1 << 12
    session = fd.load(masked).session(max_rows=1 << 12)
    seat = session.pool.take()
    assert said["arena_bytes"] == seat.executor.nbytes
    session.pool.give_back(seat)


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["CAUSAL", "--decoder", "unmask"], 2, "--decoder unmask is for masked diffusion models, and causal (architecture llama)"),
        (["CAUSAL", "--commit", "factor"], 2, "--commit goes with --decoder unmask; unmask is for masked diffusion models, and"),
        (["CAUSAL", "--no-show-filling"], 2, "--show-filling goes with --decoder unmask"),
        ([LISTOPS, "--decoder", "plain"], 2, "listops-mdlm (architecture llada) is a masked diffusion model: it needs --dec"),
        ([LISTOPS, "--decoder", "speculative"], 2, "--decoder speculative writes one token after another, but listops-mdlm"),
        ([LISTOPS, "--chat"], 1, "has no chat template"),
        ([LISTOPS, "--drafts", "2", "--commit", "schedule", "--temperature", "1"], 2, "drafts need temperature 0"),
        ([LISTOPS, "--commit", "schedule:2", "--block-length", "1"], 2, "steps must be at least the number of blocks, 10"),
        # Before a model is looked for:
        (["nowhere", "--decoder", "plain", "--commit", "factor"], 2, "--commit goes with --decoder unmask, not with plain"),
        (["nowhere", "--decoder", "auto", "--block-length", "4"], 2, "--block-length goes with --decoder unmask, not with auto"),
        (["nowhere", "--commit", "factor", "--max-draft", "4"], 2, "--max-draft goes with --decoder speculative or auto, not"),
        (["nowhere", "--trace-png", "a.png", "--decoder", "jacobi"], 2, "--trace-png goes with --decoder unmask, not with j"),
        (["nowhere", "--commit", "surest"], 2, "--commit: must be one of threshold, adaptive, factor"),
        (["nowhere", "--commit", "factor:x"], 2, "--commit: factor takes a number behind the colon, got 'x'"),
        (["nowhere", "--commit", "factor:"], 2, "--commit: factor takes a number behind the colon, got ''"),
        (["nowhere", "--commit", "schedule:2.5"], 2, "--commit: schedule takes a whole number of forwards behind the colon"),
        (["nowhere", "--commit", "schedule:0"], 2, "--commit schedule:0: steps must lie in"),
        (["nowhere", "--commit", "threshold:1.5"], 2, "--commit threshold:1.5: threshold must lie in 0..1, got 1.5"),
        (["nowhere", "--commit", "budget:nan"], 2, "--commit budget:nan: budget must"),
        (["nowhere", "--drafts", "2"], 2, "--drafts goes with --commit schedule or cosine or time or ascending, not with thr"),
        (["nowhere", "--drafts", "99", "--commit", "schedule"], 2, "drafts must lie in"),
        (["nowhere", "--drafts", "2", "--commit", "schedule", "--max-steps", "2"], 2, "no remask, max_steps"),
        (["nowhere", "--block-causal", "--cache", "dual"], 2, "--block-causal goes with --cache none, not with dual"),
        (["nowhere", "--block-causal", "--commit", "explore"], 2, "ascending, not with explore"),
        (["nowhere", "--remask", "running"], 2, "--remask running goes with --commit schedule or cosine or time or ascending"),
        (["nowhere", "--remask", "all"], 2, "invalid choice: 'all'"),
        (["nowhere", "--cache", "full"], 2, "invalid choice: 'full'"),
        (["nowhere", "--block-length", "0"], 2, "block_length must lie in"),
        (["nowhere", "--max-steps", "0"], 2, "max_steps must lie in"),
        (["nowhere", "--show-filling", "--json"], 2, "--show-filling draws a text: it does not go with --json"),
    ],
)  # fmt: skip
def test_mistakes_are_said_in_words(run, causal, arguments, code, words):
    found, out, err = run("generate", causal if arguments[0] == "CAUSAL" else arguments[0], SORT, *arguments[1:])
    assert (found, out) == (code, "") and words in err
    assert re.search(r"^fastdistill( \w+)?: error: ", err, re.MULTILINE)


def test_ctrl_c_ends_quietly(masked):
    process = start("generate", masked, "the", "--max-tokens", 2000, "--block-length", 1)
    assert len(process.stdout.read1(1)) == 1
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")


# --- answers that are drawn -------------------------------------------------------------------------------------------


class Screen:
    """What a terminal shows: text, line feeds, and the few codes that a picture uses."""

    def __init__(self, columns: int) -> None:
        self.columns, self.lines, self.row, self.column = columns, [""], 0, 0

    def write(self, text: str) -> None:
        for part in re.findall(r"\x1b\[\d*A|\x1b\[J|\x1b\[[\d;]*m|\r\n|[\r\n]|[^\x1b\r\n]", text):
            if part.endswith("m") and part[0] == "\x1b":
                continue
            if part == "\r":
                self.column = 0
            elif part in ("\n", "\r\n"):  # as a terminal driver has it, both
                self.row, self.column = self.row + 1, 0
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif part == "\x1b[J":
                self.lines[self.row :] = [self.lines[self.row][: self.column]]
            elif part[0] == "\x1b":
                self.row -= int(part[2:-1])
                assert self.row >= 0
            else:
                line = self.lines[self.row]
                self.lines[self.row] = line[: self.column] + part + line[self.column + 1 :]
                self.column += 1
                assert self.column < self.columns  # never where a terminal begins a line of its own


def test_an_answer_is_drawn_anew_in_its_place_and_the_text_remains(listops):
    said = ["generate", LISTOPS, SHUFFLE, "--stats"]
    plain = listops.generate(SHUFFLE)
    for options in ((), ("--show-filling",)):
        seen = Terminal(*said, *options, TERM="xterm", NO_COLOR="")
        assert seen.end() == 0
        frames = seen.seen.split("\r\x1b[J")
        assert len(frames) == plain.stats.forwards + 2  # the masks, each forward's, the text
        assert frames[0] == filling.DIM + "░ " * 9 + "░\x1b[0m" and all(filling.NEW in frame for frame in frames[2:-1])
        assert frames[-1].startswith(plain.text + "\r\nprompt  15 tokens")
    for options, environment in (
        ((), {"TERM": "dumb"}),
        ((), {"TERM": "xterm", "NO_COLOR": "1"}),
        (("--no-show-filling",), {"TERM": "xterm", "NO_COLOR": ""}),
    ):
        seen = Terminal(*said[:-1], *options, **environment)
        assert seen.end() == 0 and seen.seen == plain.text + "\r\n"


def test_what_needs_more_lines_than_the_terminal_has_is_not_drawn(run, masked):
    said = ["generate", masked, "the", "--max-tokens", 2100, "--max-steps", 2]
    seen = Terminal(*said, TERM="xterm", NO_COLOR="")
    assert seen.end() == 0 and filling.MASK not in seen.seen
    assert seen.seen == run(*said)[1].replace("\n", "\r\n")


def test_a_chat_is_drawn_too(chatting):
    seen = Terminal("chat", chatting, TERM="xterm", NO_COLOR="")
    for _ in range(2):
        seen.expect("> ")
        seen.type("sort : dog ant cat _ _ _ _ _\n")
        seen.expect("░ ░ ░")
        seen.expect("\r\x1b[Jant cat dog\r\n")
    seen.expect("> ")
    seen.type("\x04")
    assert seen.end() == 0 and "Traceback" not in seen.seen


def test_the_demo_shows_how_answers_are_filled(tmp_path):
    seen = Terminal("demo", TERM="xterm", NO_COLOR="", XDG_CACHE_HOME=str(tmp_path), PIP_NO_INDEX="1")
    seen.expect("shuffle")
    assert seen.expect("10 positions in ").count("\x1b[J") > 3
    assert seen.end() == 0 and "is left out, since it could not be fetched" in seen.seen


def test_ctrl_c_at_a_terminal_leaves_no_colours(masked):
    seen = Terminal("generate", masked, "the", "--max-tokens", 900, "--commit", "schedule", TERM="xterm", NO_COLOR="")
    seen.expect(filling.NEW)
    seen.interrupt()
    assert seen.end() == 130 and "Traceback" not in seen.seen
    assert seen.seen.rindex(PLAIN) > max(seen.seen.rfind(colour) for colour in (filling.NEW, filling.DIM))


@pytest.mark.parametrize("name", ["listops", "bytes"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_picture_is_the_answer_whatever_is_filled_or_masked_again(listops, masked, name, data):
    model = listops if name == "listops" else fd.load(masked)
    mask = model.plan.mask_token
    columns, rows = data.draw(st.integers(12, 40)), data.draw(st.integers(2, 12))
    length = data.draw(st.integers(1, 30))
    if name == "listops":
        token = st.integers(17, model.vocab_size - 1) | st.just(END)
    else:
        token = st.sampled_from([1 + byte for byte in b"abc xyz\n"])  # one column each, or a new line
    prompt = model.tokenizer.encode("<|bos|> sort : dog" if name == "listops" else "the")
    screen, answer = Screen(columns), [mask] * length
    picture = Picture(model.tokenizer, prompt, mask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "get_terminal_size", lambda: (columns, rows))
        patch.setattr(terminal, "show", screen.write)
        picture.draw(answer)
        for _ in range(data.draw(st.integers(0, 6))):
            for place in data.draw(st.lists(st.integers(0, length - 1), max_size=5)):
                answer[place] = data.draw(token | st.just(mask))
            picture.draw(list(answer))
            shown = "\n".join(screen.lines)
            if not picture._open:
                assert shown == ""
                break
            assert len(screen.lines) < rows
            assert shown.count(filling.MASK) == answer.count(mask)
            words = re.sub(f"[{filling.MASK}{filling.SPECIAL}]", " ", shown)
            filled = [token for token in answer if token != mask and token not in model.tokenizer.special_ids]
            want = model.tokenizer.decode(filled)
            assert re.sub(r"\s", "", words) == re.sub(r"\s", "", want)
        open = picture._open
        assert picture.piece("text") == ("" if open else "text")
        screen.write(picture.close())
        assert screen.lines == ["text" if open else ""]


def test_lines_are_no_wider_than_the_terminal():
    assert wrapped([("", "abcdef")], 4) == ["abcd", "ef"]
    assert wrapped([("", "ab\n\ncd")], 4) == ["ab", "", "cd"]
    assert wrapped([("", "日本語")], 5) == ["日本", "語"]  # two columns each
    assert wrapped([("", "e\u0301" * 3)], 2) == ["e\u0301e\u0301", "e\u0301"]
    assert wrapped([("", "a\x1b[31mb\x07")], 9) == ["a[31mb"]  # what a text holds is not obeyed
    new = filling.NEW
    assert wrapped([("", "ab"), (new, "cde")], 4) == [f"ab{new}cd{PLAIN}", f"{new}e{PLAIN}"]
    assert wrapped([], 4) == [""]
