"""What a fresh process takes until it writes, and how much memory at most."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

NEW_TOKENS = 32
# argv: folder, threads, "ids" or "text" of what stdin holds.  VmHWM is this program's own peak; ru_maxrss may be its parent's.
_PEAK = f"""
import re, sys
import fastdistill as fd
folder, threads, kind = sys.argv[1:]
model = fd.load(folder, threads=int(threads))
prompt = sys.stdin.read()
if kind == "text":
    result = model.generate(prompt, max_tokens={NEW_TOKENS})
    cached = result.stats.prompt_tokens + len(result.tokens)
else:
    ids = [int(word) for word in prompt.split()]
    session = model.session(capacity=len(ids) + {NEW_TOKENS})
    cached = len(ids) + len(fd.decode.generate(session, ids, {NEW_TOKENS}).tokens)
peak = int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
network = model.network
print(peak - network.weights.nbytes - cached * fd.runtime.kv_cache.KVCache.slot_bytes(model.plan, network.cache_dtype))
"""


def seconds_to_first_output(folder: Path, prompt: str, threads: int) -> float:
    """From the start of `fastdistill generate` to the first byte it writes."""
    command = [sys.executable, "-m", "fastdistill", "generate", str(folder), prompt]
    command += ["--max-tokens", "8", "--threads", str(threads)]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        taken = time.perf_counter() - started
        process.stdout.read()
    assert first and process.returncode == 0, f"{' '.join(command)} ended with {process.returncode}"
    return taken


def memory_beside_weights_and_cache(folder: Path, threads: int, prompt: str | list[int]) -> int:
    """Peak bytes beyond the packed weights and the filled part of the cache, of a program that gives text or token ids."""
    kind, given = ("text", prompt) if isinstance(prompt, str) else ("ids", " ".join(map(str, prompt)))
    command = [sys.executable, "-c", _PEAK, str(folder), str(threads), kind]
    return int(subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True).stdout)


def no_peak_memory() -> str | None:
    """Why peak memory cannot be read; None where it can."""
    return None if Path("/proc/self/status").exists() else "this system has no /proc/self/status"
