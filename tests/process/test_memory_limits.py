"""Less memory than some work takes, by any amount: an error, never the end of the process, and the next text is right.

What sessions say that do not fit: tests/runtime/test_memory.py.
"""

from __future__ import annotations

import resource

import pytest

import fastdistill as fd
from fastdistill.errors import FastDistillError
from tests.process.children import in_child
from tests.process.conftest import DECODERS, MESSAGES, PROMPTS, TOKENS


def limited(work, kilobytes: int) -> str:
    """What work that may take so much more than the process has ends in: nothing, or a kind of error."""
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + (kilobytes << 10), most))
    try:
        work()
    except (FastDistillError, MemoryError) as error:
        return type(error).__name__
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return ""


@pytest.mark.parametrize("kilobytes", [0, 300, 1000, 3000, 12000])
def test_work_without_memory_is_an_error_and_the_process_goes_on(folder, texts, kilobytes):
    def test() -> list[str]:
        made = fd.load(folder, threads=2)
        works = [lambda: fd.load(folder, threads=4), lambda: fd.load(folder, "q4").generate("a", max_tokens=4)]
        works += [lambda: made.chat(MESSAGES, max_tokens=4), lambda: made.generate(["abc " * 60] * 3, max_tokens=20)]
        works += [lambda: made.score("the " * 300), lambda: made.logits([1] * 300), made.session(2048).fork]
        works += [lambda one=one: made.generate("the ", max_tokens=60, decoder=one) for one in DECODERS.values()]
        found = []
        for work in works:
            found.append(limited(work, kilobytes))
            assert made.generate(PROMPTS[0], max_tokens=TOKENS).tokens == texts[PROMPTS[0]]
        assert (
            fd.load(folder, threads=2).chat(MESSAGES, max_tokens=4).tokens == made.chat(MESSAGES, max_tokens=4).tokens
        )
        return found

    found = in_child(test)
    assert any(found) if kilobytes <= 300 else kilobytes < 12000 or not all(found)
