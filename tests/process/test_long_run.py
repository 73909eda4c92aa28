"""100,000 tokens in one process: memory, files and threads are what they were after the first 20,000."""

from __future__ import annotations

import subprocess
import sys

from tests.command_line import ENVIRONMENT
from tests.test_cli import write_model

LONG_RUN = """
import gc, itertools, os, resource, sys
import fastdistill as fd
from tests.process.conftest import DECODERS, MESSAGES

model, count, told = fd.load(sys.argv[1], threads=1), 0, []

def plain():
    return len(model.generate("the ", max_tokens=4000).tokens)

def drawn():
    return len(model.generate("the ", max_tokens=300, temperature=1.0, top_p=0.9, seed=count).tokens)

def streamed():
    return sum(len(piece.tokens) for piece in model.stream("one", max_tokens=1000, stop=["@@@"]))

def several():
    return sum(len(one.tokens) for one in model.generate(["a", "b", "c", "ab"], max_tokens=200, logprobs=2))

def guessed():
    lengths = {"lookup": 2500, "tree": 200, "auto": 2500, "skip": 50, "jacobi": 50, "lookahead": 50}
    return sum(len(model.generate("the ", max_tokens=n, decoder=DECODERS[name]).tokens) for name, n in lengths.items())

session = model.session(300)

def conversation():
    '''Turns in one session that fill it again and again: what no longer fits begins anew.'''
    text, made = "", 0
    for turn in range(8):
        text += f" {turn}: "
        if len(model.tokenizer.encode(text)) > 180:
            text = "anew "
        answer = model.generate(text, max_tokens=100, session=session)
        text, made = text + answer.text[:60], made + len(answer.tokens)
    return made + len(model.chat(MESSAGES, max_tokens=20).tokens)

def failing():
    '''Errors and texts that are left in the midst.'''
    next(model.stream("the ", max_tokens=50))
    for wrong in (lambda: model.generate("", max_tokens=2), lambda: model.generate(["a", []], max_tokens=5)):
        try:
            wrong()
        except fd.errors.FastDistillError:
            pass
    model.session(64).fork().forward([1])
    return 0

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

for work in itertools.cycle([plain, drawn, streamed, several, guessed, conversation, failing]):
    count += work()
    if count > 20_000 * (1 + 4 * len(told)):
        gc.collect()
        told.append((resident(), len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), count))
        if len(told) == 2:
            break
print(*(number for one in told for number in one))
"""


def test_a_hundred_thousand_tokens_take_no_more_memory_than_twenty_thousand(tmp_path):
    sizes = dict(layers=2, hidden_size=16, intermediate_size=16, num_attention_heads=1, num_key_value_heads=1)
    folder = write_model(tmp_path / "model", max_position_embeddings=4096, **sizes)
    done = subprocess.run(
        [sys.executable, "-c", LONG_RUN, folder], env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    numbers = list(map(int, done.stdout.split()))
    (early, *of_early, first), (late, *of_late, last) = numbers[:4], numbers[4:]
    assert first < 30_000 and last > 100_000 and of_early == of_late
    assert late - early < 1 << 20, f"{late - early} bytes more after {last - first} tokens"
