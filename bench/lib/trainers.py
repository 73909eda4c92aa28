"""Trainers that take turns, ours and torch's, each in a process of its own: seconds of a step, and peak memory.

A process reads a word a line and answers with a line of JSON: `step`, seconds and the loss before it; `profile`, the stages of
a step; `memory`, the most bytes it has held.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RANK = 16
LEARNING_RATE = 1e-5


class Trainer:
    """One process.

    kind     "ours", "ours, layers run again" or "torch"
    lora     train pairs of low rank beside all linears of layers, ours on a q8 base
    folder   of the model
    threads, sequences, length
    """

    def __init__(self, kind: str, lora: bool, folder: Path, threads: int, sequences: int, length: int) -> None:
        command = [sys.executable, "-m", __name__, kind, str(int(lora)), str(folder), *map(str, (threads, sequences, length))]  # fmt: skip
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, word: str) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"a trainer ended with {self._process.wait()}"
        return json.loads(line)

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()


Step = Callable[[], float]  # a step, which gives the loss before it


def texts(folder: Path, sequences: int, length: int) -> list[np.ndarray]:
    """Prose, cut to length."""
    import fastdistill as fd
    from bench.lib.models import passage

    ids = np.array(fd.load(folder).tokenizer.encode(passage()), np.int32)
    return [np.resize(np.roll(ids, -97 * i), length) for i in range(sequences)]


def ours(kind: str, lora: bool, folder: Path, threads: int, sequences: int, length: int) -> Step:
    from fastdistill.checkpoint import open_checkpoint
    from fastdistill.models.agreement import plan_of
    from fastdistill.train.batch import batch_of
    from fastdistill.train.engine import Engine
    from fastdistill.train.lora import with_lora
    from fastdistill.train.objectives import objective
    from fastdistill.train.optimisers import AdamW

    batch = batch_of(texts(folder, sequences, length))
    options: dict[str, Any] = {"rows": len(batch), "threads": threads, "checkpoint": kind != "ours"}
    with open_checkpoint(folder) as checkpoint:
        plan, tensors = plan_of(checkpoint), checkpoint.tensors
        if lora:
            pairs = with_lora(plan, RANK)
            engine = Engine(pairs.plan, {**tensors, **pairs.tensors()}, pairs.trained, format="q8", **options)
        else:
            engine = Engine(plan, tensors, **options)
    optimiser, cross_entropy = AdamW(engine.parameters, threads=threads), objective("cross_entropy")

    def step() -> float:
        loss = engine.accumulate(batch, cross_entropy, batch.weight)
        engine.finish()
        optimiser.clip(1.0)
        optimiser.step(LEARNING_RATE)
        return loss

    return step


def torchs(kind: str, lora: bool, folder: Path, threads: int, sequences: int, length: int) -> Step:
    import torch

    from bench.lib.peers import transformers_model

    ids = torch.from_numpy(np.stack(texts(folder, sequences, length)).astype(np.int64))
    model = transformers_model(folder, threads, attention="sdpa")
    model.config.use_cache = False
    if lora:
        import peft

        config = peft.LoraConfig(
            r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"
        )
        model = peft.get_peft_model(model, config)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=LEARNING_RATE, fused=True)

    def step() -> float:
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return loss.item()

    return step


def timed(step: Step) -> dict[str, float]:
    started = time.perf_counter()
    loss = step()
    return {"seconds": time.perf_counter() - started, "loss": loss}


def profiled(step: Step) -> dict[str, Any]:
    import fastdistill as fd

    with fd.Profile() as profile:
        step()
    return {name: getattr(profile, name).facts() for name in ("forward", "reverse", "step")}


def memory() -> int:
    """VmHWM is this program's own peak; ru_maxrss may be its parent's."""
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]


def main(kind: str, lora: str, folder: str, *numbers: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    threads, sequences, length = map(int, numbers)
    make = torchs if kind == "torch" else ours
    step = make(kind, lora == "1", Path(folder), threads, sequences, length)
    words: dict[str, Callable[[], Any]] = {
        "step": lambda: timed(step),
        "profile": lambda: profiled(step),
        "memory": memory,
    }
    for word in sys.stdin:
        print(json.dumps(words[word.strip()]()), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
