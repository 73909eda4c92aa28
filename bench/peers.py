"""Other engines over the same weights.  All optional: the extra `bench` installs them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastdistill.checkpoint import open_checkpoint

REASON = "{} is not installed (pip install '.[bench]')"


def missing(*modules: str) -> str | None:
    """Why a comparison with these modules has to be skipped; None where they are all here."""
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    return REASON.format(", ".join(absent)) if absent else None


def transformers_llama(folder: Path, threads: int = 1) -> Any:
    """transformers' LlamaForCausalLM in float32 with the folder's weights, dequantised where they are quantised.

    One thread by default: torch's pool waits by spinning, and crawls where the cores are shared.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    with open_checkpoint(folder) as checkpoint:
        fields = {key: value for key, value in checkpoint.config.raw.items() if key != "quantization_config"}
        config = LlamaConfig(**fields)
        state = {name: torch.from_numpy(np.array(tensor.to_float32())) for name, tensor in checkpoint.tensors.items()}
    torch.set_num_threads(threads)
    model, loading = LlamaForCausalLM.from_pretrained(
        None,
        config=config,
        state_dict=state,
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
    )
    wrong = {kind: names for kind, names in loading.items() if names}
    assert not wrong, f"transformers did not take every weight as it is: {wrong}"
    return model


def transformers_logits(model: Any, ids: Sequence[int]) -> np.ndarray:
    """float32 (n, vocab_size): the logits of a chain."""
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.tensor([list(ids)])).logits[0].numpy()


def transformers_greedy(model: Any, ids: Sequence[int], count: int) -> tuple[list[int], list[float]]:
    """`count` tokens by argmax with a cache, end-of-text or not, and by how much each one's logit led."""
    import torch

    tokens: list[int] = []
    leads: list[float] = []
    cache, given = None, torch.tensor([list(ids)])
    with torch.inference_mode():
        for _ in range(count):
            result = model(input_ids=given, past_key_values=cache, use_cache=True)
            best = result.logits[0, -1].topk(2)
            tokens.append(int(best.indices[0]))
            leads.append(float(best.values[0] - best.values[1]))
            cache, given = result.past_key_values, best.indices[:1, None]
    return tokens, leads


class LlamaCpp:
    """llama.cpp over a GGUF file: forwards of given tokens, nothing else timed with them."""

    def __init__(self, path: str | Path, capacity: int, threads: int, every_logit: bool = False) -> None:
        import llama_cpp

        self.version = llama_cpp.__version__
        self._library = llama_cpp
        self._llama = llama_cpp.Llama(
            str(path),
            n_ctx=capacity,
            n_batch=capacity,
            n_threads=threads,
            n_threads_batch=threads,
            logits_all=every_logit,
            verbose=False,
        )
        self.vocab_size = self._llama.n_vocab()

    def clear(self) -> None:
        """Forget the context."""
        self._llama.reset()

    def forward(self, tokens: Sequence[int]) -> int:
        """Append tokens; the argmax after the last one."""
        self._llama.eval(tokens)
        last = self._library.llama_get_logits_ith(self._llama.ctx, -1)
        return int(np.ctypeslib.as_array(last, shape=(self.vocab_size,)).argmax())

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """float32 (n, vocab_size): the logits of a chain; needs `every_logit`."""
        self.clear()
        self._llama.eval(list(ids))
        return np.array(self._llama.scores[: len(ids)])
