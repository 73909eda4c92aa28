"""Other engines over the same weights.  All optional: the extra `bench` installs them."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastdistill.checkpoint import open_checkpoint

REASON = "{} is not installed (pip install '.[bench]')"


def missing(*modules: str) -> str | None:
    """Why a comparison with these modules has to be skipped; None where they are all here."""
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    return REASON.format(", ".join(absent)) if absent else None


def transformers_model(folder: Path, threads: int = 1, dtype: str = "float32", attention: str = "eager") -> Any:
    """transformers' model with the folder's weights, dequantised where they are quantised.

    threads    one by default: torch's pool waits by spinning, and crawls where the cores are shared
    dtype      of torch
    attention  "eager", the plain formula, or "sdpa", torch's fast one
    """
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    with open_checkpoint(folder) as checkpoint:
        fields = {key: value for key, value in checkpoint.config.raw.items() if key != "quantization_config"}
        config = AutoConfig.for_model(**fields)
        state = {name: torch.from_numpy(np.array(tensor.to_float32())) for name, tensor in checkpoint.tensors.items()}
    torch.set_num_threads(threads)
    model, loading = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
        None,
        config=config,
        state_dict=state,
        dtype=getattr(torch, dtype),
        attn_implementation=attention,
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


def requantised(gguf: Path, folder: Path) -> Path:
    """The file with its matrices in Q4_0, for which llama.cpp has its fastest kernels: by its own quantise call."""
    import llama_cpp

    target = folder / f"{gguf.stem}.{gguf.stat().st_mtime_ns:x}.Q4_0.gguf"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
        parameters.allow_requantize = True
        llama_cpp.llama_log_set(_SILENT, ctypes.c_void_p())
        status = llama_cpp.llama_model_quantize(os.fsencode(gguf), os.fsencode(partial), ctypes.byref(parameters))
        assert status == 0, f"llama_model_quantize gave {status}"
        partial.rename(target)
    return target


_SILENT = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda level, text, data: None)


class LlamaCpp:
    """llama.cpp over a GGUF file: forwards of given tokens by llama_decode itself, nothing else timed with them."""

    MOST_ROWS = 512  # of one llama_decode

    def __init__(self, path: str | Path, capacity: int, threads: int) -> None:
        import llama_cpp

        self.version = llama_cpp.__version__
        self.system = llama_cpp.llama_print_system_info().decode()
        self._library = llama_cpp
        self._llama = llama_cpp.Llama(
            str(path), n_ctx=capacity, n_batch=self.MOST_ROWS, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self.vocab_size = self._llama.n_vocab()
        self._context = self._llama.ctx
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(self.MOST_ROWS, 0, 1)
        self._length = 0
        for row in range(self.MOST_ROWS):
            self._batch.n_seq_id[row], self._batch.seq_id[row][0] = 1, 0

    @property
    def has_avx512(self) -> bool:
        """Whether this build runs AVX-512 kernels on this CPU."""
        return "AVX512 = 1" in self.system

    def clear(self) -> None:
        """Forget the context."""
        self.truncate(0)

    def truncate(self, length: int) -> None:
        """Forget what lies behind the first `length` tokens."""
        self._library.llama_memory_seq_rm(self._memory, 0, length, -1)
        self._length = length

    def forward(self, tokens: Sequence[int]) -> int:
        """Append tokens; the argmax after the last one."""
        for start in range(0, len(tokens), self.MOST_ROWS):
            self._decode(tokens[start : start + self.MOST_ROWS], reads=1)
        return int(self._logits(1).argmax())

    def forward_rows(self, tokens: Sequence[int]) -> np.ndarray:
        """Append up to MOST_ROWS tokens; the argmax after each, (m,)."""
        self._decode(tokens, reads=len(tokens))
        return self._logits(len(tokens)).argmax(axis=1)

    def drawing(self, temperature: float) -> Callable[[], int]:
        """What draws a token of the last row's logits by its own samplers, the likeliest where the temperature is 0."""
        library = self._library
        chain = library.llama_sampler_chain_init(library.llama_sampler_chain_default_params())
        if temperature:
            library.llama_sampler_chain_add(chain, library.llama_sampler_init_temp(temperature))
            library.llama_sampler_chain_add(chain, library.llama_sampler_init_dist(0))
        else:
            library.llama_sampler_chain_add(chain, library.llama_sampler_init_greedy())
        return partial(library.llama_sampler_sample, chain, self._context, -1)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """float32 (n, vocab_size): the logits of a chain of up to MOST_ROWS tokens."""
        self.clear()
        self._decode(ids, reads=len(ids))
        return self._logits(len(ids)).copy()

    def skip(self, tokens: Sequence[int]) -> None:
        """Append up to MOST_ROWS tokens and read none of their rows."""
        self._decode(tokens, reads=0)

    def _decode(self, tokens: Sequence[int], reads: int) -> None:
        """Append tokens and ask for the logits of the last `reads` of them."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for row, token in enumerate(tokens):
            batch.token[row], batch.pos[row] = token, self._length + row
            batch.logits[row] = row >= len(tokens) - reads
        status = self._library.llama_decode(self._context, batch)
        assert status == 0, f"llama_decode gave {status}"
        self._length += len(tokens)

    def _logits(self, rows: int) -> np.ndarray:
        """float32 (rows, vocab_size), llama.cpp's own memory: what the latest call computed."""
        return np.ctypeslib.as_array(self._library.llama_get_logits(self._context), shape=(rows, self.vocab_size))
