"""Jacobi Forcing from nothing: a small model learns a task, then to write it in fewer forwards; the text is plain decoding's.

The model learns to spell words out (bench/lib/spelling.py).  Jacobi decoding gains it little.  Then it writes texts of its own, and is
trained on states of its Jacobi iteration on the way to them (`fastdistill.train.JacobiForcing`).  Prompts that are asked are in neither.
Several ways to train it on them begin with the same weights and the same states.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import NamedTuple

import numpy as np

import fastdistill as fd
from bench.lib.plot import picture
from bench.lib.progress import Progress
from bench.lib.report import Report
from bench.lib.spelling import END, LONGEST_PROMPT, MOST, SIGNS, Spelling, spellings
from bench.studies.trajectory import draw
from fastdistill.checkpoint import Config, Tensor
from fastdistill.decode import Decoder, Generation, generate
from fastdistill.models import plan_for
from fastdistill.train import AdamW, Engine, JacobiForcing, Schedule, batch_of, objective, rollouts
from fastdistill.train.jacobi_forcing import Trajectory

WIDTH, LAYERS, HEADS = 96, 3, 3
LEARN, FORCE = 16, 8  # texts of a step: of answers, and of trees
RATE, FORCING_RATE, CLIP = 3e-3, 1e-3, 1.0
ASKED = 999  # seed of the prompts that are asked
WAYS = {
    "global": {"schedule": "random", "behind": "text"},
    "local": {"schedule": "random", "behind": "text", "toward": "next"},
    "progressive": {"schedule": "progressive", "behind": "states"},
}  # settings of JacobiForcing: CLLM's two consistencies, and Jacobi Forcing


def decoders() -> dict[str, Decoder]:
    """All guesses are made in every forward: what is counted is forwards, not time."""
    return {
        **{f"block {block}": fd.Jacobi(block, recycle=False, adaptive=False) for block in (4, 8, 16, 32)},
        "2 blocks of 16": fd.Jacobi(max_blocks=2, recycle=False, adaptive=False),
        "block 16, recycling": fd.Jacobi(adaptive=False),
    }


def add_arguments(parser: ArgumentParser) -> None:
    numbers = {
        "steps": (2000, "of learning the task"),
        "texts": (1000, "of its own that it is forced on"),
        "forcing-steps": (2000, "of that"),
        "questions": (200, "that are asked"),
        "prompts": (40, "that decoders write, of these"),
        "block": (16, "tokens of a block that is trained on"),
        "window": (4, "blocks that noise rises over"),
        "seed": (0, "of everything"),
    }
    for name, (default, about) in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{about} (default: {default})")
    parser.add_argument(
        "--text-scale", type=float, default=10.0, metavar="X", help="of the text's cross entropy (default: %(default)s)"
    )
    parser.add_argument(
        "--ways",
        nargs="+",
        choices=WAYS,
        default=["global"],
        help="CLLM's global or local consistency, or the progressive noise of Jacobi Forcing (default: global)",
    )
    parser.add_argument("--plot", type=picture, metavar="FILE.png", help="how a text comes about, before and after")


class Asked(NamedTuple):
    """right: part of all answers; tokens: of those of prompts; forwards: for these, by decoder; one: how the first came about"""

    right: float
    tokens: int
    forwards: dict[str, int]
    one: Generation


def ask(engine: Engine, questions: list[Spelling], prompts: int) -> Asked:
    """All questions are answered; the first of them, by every decoder, which writes what plain decoding writes, or this ends."""
    network, forwards, tokens, options = engine.network(), dict.fromkeys(decoders(), 0), 0, {"end_tokens": {END}}
    asked = [question.prompt for question in questions]
    written = rollouts(network, asked, temperature=0, max_tokens=MOST, **options)
    texts = np.split(written.tokens, written.starts[1:-1])
    right = [np.array_equal(text, np.concatenate(each)) for text, each in zip(texts, questions, strict=True)]
    for prompt, text in zip(asked[:prompts], texts, strict=False):
        tokens += len(text) - len(prompt)
        for name, decoder in decoders().items():
            found = generate(network.session(), prompt, MOST, decoder=decoder, **options)
            assert found.tokens == text[len(prompt) :].tolist(), f"{name} writes another text"
            forwards[name] += found.stats.forwards
    traced = fd.Jacobi(recycle=False, adaptive=False, trace=True)
    one = generate(network.session(), asked[0], MOST, decoder=traced, **options)
    return Asked(float(np.mean(right)), tokens, forwards, one)


def config() -> Config:
    """Of the model that learns."""
    return Config({
        "model_type": "llama", "vocab_size": len(SIGNS), "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 256, "rope_theta": 10000.0, "tie_word_embeddings": False,
    })  # fmt: skip


def untrained(options: Namespace) -> Engine:
    plan = plan_for(config())
    generator = np.random.default_rng(options.seed)
    tensors = {}
    for name, weight in plan.weights.items():
        noise = generator.normal(0, 0.05, weight.shape) if len(weight.shape) > 1 else np.ones(weight.shape)
        tensors[name] = Tensor(name, "f32", weight.shape, noise.astype(np.float32))
    rows = FORCE * (LONGEST_PROMPT + 2 * (MOST + options.block))  # trees of texts of any length
    return Engine(plan, tensors, rows=rows, threads=max(options.threads))


def learn(engine: Engine, steps: int, generator: np.random.Generator, progress: Progress) -> None:
    """The task, of answers that are new in every step."""
    optimiser, rate = AdamW(engine.parameters), schedule(RATE, steps)
    progress.group("learns the task")
    for step in range(steps):
        learn_answers(engine, generator, LEARN)
        advance(engine, optimiser, rate(step))
        progress.step(step + 1, steps)


def learn_answers(engine: Engine, generator: np.random.Generator, count: int, scale: float = 1.0) -> None:
    """Adds scale times the gradient of the mean cross entropy of new answers."""
    drawn = spellings(count, generator)
    counted = [np.arange(len(prompt) + len(answer)) >= len(prompt) for prompt, answer in drawn]
    batch = batch_of([np.concatenate(both) for both in drawn], counted)
    engine.accumulate(batch, objective("cross_entropy"), batch.weight / scale)


def force(
    engine: Engine, forcing: JacobiForcing, found: list[Trajectory], options: Namespace, progress: Progress
) -> None:
    """Jacobi Forcing on states of the model's own, beside answers of the task."""
    steps, divergence, generator = (
        options.forcing_steps,
        objective("forward_kl"),
        np.random.default_rng([options.seed, 1]),
    )
    optimiser, rate = AdamW(engine.parameters, weight_decay=0.0), schedule(FORCING_RATE, steps)
    for step in range(steps):
        some = [found[i] for i in generator.integers(len(found), size=FORCE)]
        engine.accumulate(forcing.batch(engine, some, generator), divergence, len(some))
        learn_answers(engine, generator, FORCE, options.text_scale)
        advance(engine, optimiser, rate(step))
        progress.step(step + 1, steps)


def schedule(rate: float, steps: int) -> Schedule:
    return Schedule("cosine", rate, steps=steps, warm_up=min(50, steps))


def advance(engine: Engine, optimiser: AdamW, rate: float) -> None:
    engine.finish()
    optimiser.clip(CLIP)
    optimiser.step(rate)


def run(options: Namespace) -> Report:
    report, progress = Report(__doc__), Progress()
    generator = np.random.default_rng(options.seed)
    questions = spellings(options.questions, np.random.default_rng(ASKED))
    engine = untrained(options)
    learn(engine, options.steps, generator, progress)
    learned = {name: parameter.value.copy() for name, parameter in engine.parameters.items()}
    forcings = {
        way: JacobiForcing(options.block, window=options.window, text_scale=options.text_scale, **WAYS[way])
        for way in options.ways
    }
    prompts = [prompt for prompt, _ in spellings(options.texts, generator)]
    found = JacobiForcing(options.block).trajectories(engine, prompts, generator, max_tokens=MOST, end_tokens=[END])
    asked = {"before": ask(engine, questions, options.prompts)}
    for way, forcing in forcings.items():
        for name, value in learned.items():
            engine.parameters[name].value[:] = value
        progress.group(f"learns to jump: {way}")
        force(engine, forcing, found, options, progress)
        asked[f"after, {way}"] = ask(engine, questions, options.prompts)
    progress.end()
    before, *after = asked.values()
    for way, each in zip(options.ways, after, strict=True):
        for name in decoders():
            rates = [one.tokens / one.forwards[name] for one in (before, each)]
            report.row(way=way, decoder=name, before=rates[0], after=rates[1], times=rates[1] / rates[0])
    report.note("tokens a forward, the prompt's included; every text is plain decoding's, token for token")
    right = ", ".join(f"{each.right:.1%} {name}" for name, each in asked.items())
    report.note(f"right answers, of {len(questions)}: {right}")
    iterations = np.mean([len(each.states) - 1 for each in found])
    report.note(f"iterations until a text's blocks of {options.block} had settled, before: {iterations:.1f}")
    for each in asked.values():
        report.note(fd.show.trajectory(each.one, label=SIGNS.__getitem__))
    if options.plot:
        draw(options.plot, {name: each.one for name, each in asked.items()})
        report.note(f"picture in {options.plot}")
    return report
