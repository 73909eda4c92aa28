"""The real SmolLM2-135M-Instruct and Gemma 3 270M: recorded text and bits, the same on every level; laws 1 and 2 on real weights.

CI runs this file with each level forced in turn.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import fastdistill as fd
from fastdistill.checkpoint.gguf import convert_gguf
from fastdistill.models import export_folder

pytestmark = pytest.mark.model

# Greedy, as stored (q4 and q8).  Recorded once; law 1 makes them the same on every level, thread count and architecture.
TEXTS = {
    "The capital of France is": " Paris.\n\nThe United States has a population of approximately 321",
    "def fib(n):": "\n    if n == 0:\n        return 1\n    return n * fib",
    "1, 2, 3, 4, 5,": " 6, 7, 8, 9, 10,",
}
LOGITS = "1cd79d3f79206c45cd8036ea0def14d1c50bf89008ca4d820fe88da7684072dd"  # sha256 of the float32 logits of every row of IDS


# Of Gemma 3 270M, as its GGUF is converted: q8, and f32 where that had K-quants.
GEMMA_TEXTS = {
    "The capital of France is": " the capital of the country of France. It is the capital",
    "def fib(n):": "\n    if n == 0 or n == 1",
    "Once upon a time": ", there was a little girl named Lily. She was a",
}
GEMMA_LOGITS = "139f7598a9085f7baf89f743f1e51279010d34ad3b4ce6ff90a35e79a131a5af"


@pytest.fixture(scope="module")
def gemma(real_model):
    return fd.load(real_model("gemma3-270m"))


def test_gemma_writes_the_recorded_text_with_the_recorded_bits(gemma):
    results = gemma.generate(list(GEMMA_TEXTS), max_tokens=12)
    assert {prompt: result.text for prompt, result in zip(GEMMA_TEXTS, results, strict=True)} == GEMMA_TEXTS
    assert hashlib.sha256(gemma.logits(text_ids(gemma)).astype("<f4").tobytes()).hexdigest() == GEMMA_LOGITS


@pytest.fixture(scope="module")
def model(smollm2):
    return fd.load(smollm2)


def text_ids(model):
    return model.tokenizer.encode("Alice was beginning to get very tired of sitting by her sister on the bank.")


def test_greedy_text_is_the_recorded_one(model):
    results = model.generate(list(TEXTS), max_tokens=16)
    assert {prompt: result.text for prompt, result in zip(TEXTS, results, strict=True)} == TEXTS


def test_logits_are_the_recorded_bits(model):
    assert hashlib.sha256(model.logits(text_ids(model)).astype("<f4").tobytes()).hexdigest() == LOGITS


def test_a_tree_and_any_split_have_the_bits_of_the_chain(model):
    ids = text_ids(model)
    chain = model.logits(ids)
    session = model.session(capacity=64)
    for size in (1, 3, 5):  # rows split over keys or not, register tiles full or not
        start = session.length
        got = session.forward(ids[start : start + size], read=fd.Read(logits=True)).logits
        np.testing.assert_array_equal(got.view(np.int32), chain[start : start + size].view(np.int32))
    start = session.length
    tree = [ids[start], 5, ids[start + 1], 7, ids[start + 2]]  # the text's path is rows 0, 2, 4
    got = session.forward(tree, parents=[-1, -1, 0, 0, 2], read=fd.Read(logits=True)).logits[[0, 2, 4]].copy()
    np.testing.assert_array_equal(got.view(np.int32), chain[start : start + 3].view(np.int32))
    session.keep([0, 2, 4])
    got = session.forward(ids[start + 3 :], read=fd.Read(logits=True)).logits
    np.testing.assert_array_equal(got.view(np.int32), chain[start + 3 :].view(np.int32))


def test_sampled_text_depends_on_the_seed_and_on_nothing_else(model):
    options = dict(max_tokens=12, temperature=0.9, top_k=40, top_p=0.95, repetition_penalty=1.1)
    prompts = ["Once upon a time", "The sea", "A list of colours:"]
    together = [result.tokens for result in model.generate(prompts, seed=5, **options)]
    alone = [
        model.generate(prompt, seed=5, session=model.session(capacity=64, max_rows=2), **options).tokens
        for prompt in prompts
    ]
    assert together == alone
    assert together != [result.tokens for result in model.generate(prompts, seed=6, **options)]


def test_a_chat_turn_ends_itself_and_the_next_one_reuses_the_cache(model):
    messages = [{"role": "user", "content": "Say hello."}]
    session = model.session(capacity=256)
    first = model.generate(model.chat_prompt(messages), max_tokens=60, session=session)
    assert first.finish_reason == "stop" and "<|im_end|>" not in first.text
    messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "Again."}]
    prompt = model.chat_prompt(messages)
    second = model.generate(prompt, max_tokens=8, session=session)
    assert second.stats.reused_tokens >= first.stats.prompt_tokens
    assert second.tokens == model.generate(prompt, max_tokens=8).tokens


@pytest.mark.parametrize("format", ["f16", "q8"])
def test_other_formats_write_sense(smollm2, format):
    assert fd.load(smollm2, format=format).generate("The capital of France is", max_tokens=2).text.startswith(" Paris")


def test_it_returns_from_a_gguf_file_as_it_was(smollm2, model, tmp_path):
    export_folder(smollm2, tmp_path / "model.gguf")
    again = fd.load(convert_gguf(tmp_path / "model.gguf", tmp_path / "model"))
    ids = text_ids(model)
    assert again.tokenizer.encode(" ".join(TEXTS)) == model.tokenizer.encode(" ".join(TEXTS))
    assert hashlib.sha256(again.logits(ids).astype("<f4").tobytes()).hexdigest() == LOGITS


# 200 MB is what a board of 512 MB has left.  NumPy and tokenizers take 30 to 40 of them, as the system maps their files.
CHAT = """
import resource, subprocess, sys
libraries = "import numpy, tokenizers, resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)"
libraries = int(subprocess.run([sys.executable, "-c", libraries], capture_output=True, text=True).stdout)
said = "Tell me about rivers and mountains. " * 40 + "\\nWrite a very long story about a river.\\n"
command = [sys.executable, "-m", "fastdistill", "chat", sys.argv[1], "--capacity", "512", "--max-tokens", "150"]
done = subprocess.run(command, input=said, capture_output=True, text=True)
print(done.returncode, libraries, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10)
"""


@pytest.fixture
def small_group():
    """A control group of 200 MB: the file that a process joins it by."""
    for name, limit in (("memory", "memory.limit_in_bytes"), (".", "memory.max")):
        group = Path("/sys/fs/cgroup", name, "fastdistill_test")
        try:
            group.mkdir(exist_ok=True)
            (group / limit).write_text("200000000")
        except OSError:
            with suppress(OSError):
                group.rmdir()
            continue
        yield group / "cgroup.procs"
        group.rmdir()
        return
    pytest.skip("control groups cannot be made here: it needs root")


def test_a_chat_of_512_tokens_fits_into_200_mb(smollm2, small_group):
    join = f'echo $$ >{small_group} && exec "$0" "$@"'
    command = ["sh", "-c", join, sys.executable, "-c", CHAT, str(smollm2)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    status, libraries, peak = map(int, done.stdout.split())
    assert status == 0 and peak - libraries < 143e6, (status, libraries, peak)
