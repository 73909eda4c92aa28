"""Prompt lookup as llama-cpp-python and transformers have it, beside their own plain decoding: whole greedy texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.lib.peers import transformers_model
from bench.lib.timing import Samples, interleave

GUESSES = {"llama.cpp": (7, 10, 16), "transformers": (10,)}
CONTEXT_STEP = 256  # llama.cpp rounds n_ctx up to it, llama-cpp-python's arrays do not: a number between them overflows


@dataclass(frozen=True)
class Written:
    """A text, and how many tokens a second came after the first of them."""

    tokens: list[int]
    rate: float


Writer = Callable[[Sequence[int], int], Written]  # prompt, most new tokens


@dataclass
class Comparison:
    """A peer's lookup beside its own plain decoding: one entry a prompt."""

    rates: list[float] = field(default_factory=list)
    speed_ups: list[float] = field(default_factory=list)
    same_texts: list[bool] = field(default_factory=list)

    def cells(self) -> dict[str, Any]:
        return {
            "prompts": len(self.rates),
            "tokens/s": float(np.median(self.rates)),
            "/ its plain": float(np.median(self.speed_ups)),
            "least": min(self.speed_ups),
            "most": max(self.speed_ups),
            "text of its plain": f"{sum(self.same_texts)} of {len(self.same_texts)}",
        }


def compare(
    writers: Mapping[int, Writer],
    prompt: Sequence[int],
    count: int,
    repetitions: int,
    pause: float,
    into: dict[int, Comparison],
) -> None:
    """One prompt in turns; `writers` by how many tokens they guess, 0 the plain one."""
    turns = {guesses: partial(write, prompt, count) for guesses, write in writers.items()}
    found = interleave(turns, repetitions, pause)
    rates = {guesses: Samples.of(text.rate for text in texts) for guesses, texts in found.items()}
    for guesses, texts in found.items():
        comparison = into.setdefault(guesses, Comparison())
        comparison.rates.append(rates[guesses].median)
        comparison.speed_ups.append((rates[guesses] / rates[0]).median)
        comparison.same_texts.append(texts[-1].tokens == found[0][-1].tokens)


def rate(tokens: int, seconds: float) -> float:
    return tokens / max(seconds, 1e-9)


class LlamaCppWriters:
    """`Llama.generate`, plain and with `LlamaPromptLookupDecoding`: an object each, as lookup makes it copy all logits."""

    def __init__(self, gguf: Path, tokens: int, threads: int, end_tokens: frozenset[int]) -> None:
        """For texts of up to so many tokens, prompt and new ones."""
        import llama_cpp
        from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

        capacity = -(-(tokens + 1 + max(GUESSES["llama.cpp"])) // CONTEXT_STEP) * CONTEXT_STEP

        def load(draft_model: Any = None) -> Any:
            return llama_cpp.Llama(
                str(gguf), n_ctx=capacity, n_threads=threads, n_threads_batch=threads, verbose=False,
                draft_model=draft_model, logits_all=draft_model is not None,  # without it, room for one batch's logits
            )  # fmt: skip

        drafts = {guesses: LlamaPromptLookupDecoding(num_pred_tokens=guesses) for guesses in GUESSES["llama.cpp"]}
        self._ends, self._plain, self._lookup = end_tokens, load(), load(next(iter(drafts.values())))
        self.writers: dict[int, Writer] = {0: partial(self._write, self._plain, None)}
        self.writers |= {guesses: partial(self._write, self._lookup, draft) for guesses, draft in drafts.items()}

    def close(self) -> None:
        self._plain.close()
        self._lookup.close()

    def _write(self, llama: Any, draft: Any, prompt: Sequence[int], count: int) -> Written:
        llama.draft_model = draft
        tokens: list[int] = []
        running = llama.generate(list(prompt), temp=0.0, repeat_penalty=1.0)
        for token in running:
            if not tokens:
                started = time.perf_counter()
            tokens.append(token)
            if len(tokens) == count or token in self._ends:
                break
        taken = time.perf_counter() - started
        running.close()
        return Written(tokens, rate(len(tokens) - 1, taken))


class Arrivals:
    """A streamer of transformers: when the first tokens came, and how many they were."""

    def __init__(self) -> None:
        self._puts, self.first, self.started = 0, 0, 0.0

    def put(self, tokens: Any) -> None:
        self._puts += 1
        if self._puts == 2:  # the first put is the prompt
            self.first, self.started = tokens.numel(), time.perf_counter()

    def end(self) -> None:
        self.seconds = time.perf_counter() - self.started


class TransformersWriters:
    """`generate` in float32, plain and with `prompt_lookup_num_tokens`."""

    def __init__(self, folder: Path, threads: int, end_tokens: frozenset[int]) -> None:
        self._model, self._ends = transformers_model(folder, threads, "float32", "sdpa"), sorted(end_tokens)
        self.writers: dict[int, Writer] = {0: self._write}
        for guesses in GUESSES["transformers"]:
            self.writers[guesses] = partial(self._write, prompt_lookup_num_tokens=guesses)

    def _write(self, prompt: Sequence[int], count: int, **options: Any) -> Written:
        import torch

        given, arrivals = torch.tensor([list(prompt)]), Arrivals()
        with torch.inference_mode():
            whole = self._model.generate(
                given, attention_mask=torch.ones_like(given), max_new_tokens=count, do_sample=False, streamer=arrivals,
                eos_token_id=self._ends or None, pad_token_id=0, **options,
            )  # fmt: skip
        tokens = whole[0, len(prompt) :].tolist()
        return Written(tokens, rate(len(tokens) - arrivals.first, arrivals.seconds))
