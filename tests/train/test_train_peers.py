"""Training beside torch: gradients of every family are those of autograd, and ten steps of AdamW lead to the same weights."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bench.lib.peers import REASON
from fastdistill.checkpoint import Tensor, open_checkpoint
from fastdistill.distill.loss import IGNORED
from fastdistill.models.agreement import plan_of
from fastdistill.models.plan import Weight
from fastdistill.train.batch import Batch, batch_of
from fastdistill.train.engine import Engine
from fastdistill.train.lora import save_adapter, with_lora
from fastdistill.train.objectives import objective
from fastdistill.train.optimisers import AdamW, Group, Schedule
from fastdistill.train.saved_model import save_model, trainable
from tests.families import CASES, CAUSAL

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch", reason=REASON.format("torch"))
transformers = pytest.importorskip("transformers", reason=REASON.format("transformers"))
torch.set_num_threads(1)  # its pool waits by spinning, and crawls where cores are shared
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

LENGTHS = [9, 1, 17, 6]
LLAMA = dict(
    vocab_size=83, hidden_size=48, intermediate_size=50, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=96,
)  # fmt: skip
# Our float32 against float64, as a part of a weight's largest gradient: some thousand roundings of 2^-24, most of which
# cancel, on terms that are several times their sum.
TOLERANCE = 2e-4
SMALL = 1e-3  # gradients are of about one; one that is 0, as that of a key's bias where no positions turn it, is rounded too


def made(model_type: str, raw: dict):
    """A random model of transformers, float32: norms, biases and matrices far from their tidy beginnings."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **raw)
    model = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.12))
    return model


def engine_of(model, folder: Path, **options) -> Engine:
    """Of the same weights, by way of the files that transformers writes."""
    model.save_pretrained(folder)
    with open_checkpoint(folder) as checkpoint:
        return Engine(plan_of(checkpoint), checkpoint.tensors, rows=64, threads=2, **options)


def texts(vocab: int, seed: int = 0) -> Batch:
    """Sequences of which some tokens count, as much or as little.  Tokens 0 and 1 may pad, and torch gives those no gradient."""
    random = np.random.default_rng(seed)
    return batch_of(
        [random.integers(2, vocab, length) for length in LENGTHS],
        [random.choice([0.0, 0.5, 1.0, 2.0], length) for length in LENGTHS],
    )


def backward(model, batch: Batch):
    """The loss of a batch by autograd, its gradients added to the parameters'; a sequence at a time."""
    total = 0.0
    for i in range(batch.sequences):
        part = batch.part(i, i + 1)
        tokens, labels, weights = (
            torch.from_numpy(each) for each in (part.tokens.astype(int), part.labels.astype(int), part.weights)
        )
        logits = model(input_ids=tokens[None]).logits[0]
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED)
        loss = (losses * weights).sum() / batch.weight
        if (part.weights > 0).any():
            loss.backward()
        total += loss.item()
    return total


def stored(model, folder: Path) -> dict[str, Tensor]:
    """The model's parameters in float32, by the names that files have."""
    model.float().save_pretrained(folder)
    with open_checkpoint(folder) as checkpoint:
        return {name: Tensor(name, "f32", tensor.shape, tensor.to_float32().copy()) for name, tensor in checkpoint.tensors.items()}  # fmt: skip


def in_place(weight: Weight, tensors: dict[str, Tensor], slope_alone: bool = False) -> np.ndarray:
    """A weight of the plan as it is made of stored tensors; of gradients, without what is added to them, the 1 of 1 + w."""
    found = weight.source.tensor(tensors).to_float32()
    if not slope_alone:
        return found
    zeros = {name: Tensor(name, "f32", shape, np.zeros(shape, np.float32)) for name, shape in weight.source.stored.items()}  # fmt: skip
    return found - weight.source.tensor(zeros).to_float32()


@pytest.mark.parametrize("checkpoint", [False, True], ids=["kept", "run again"])
@pytest.mark.parametrize("name", CAUSAL)
def test_gradients_are_those_of_autograd(tmp_path, name, checkpoint):
    model_type, raw = CASES[name]
    model = made(model_type, raw)
    engine = engine_of(model, tmp_path / "model", checkpoint=checkpoint)
    batch = texts(engine.vocab_size)
    want = backward(model.double(), batch)
    assert engine.accumulate(batch, objective("cross_entropy"), batch.weight) == pytest.approx(want, rel=1e-5)
    engine.finish()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    theirs = stored(model, tmp_path / "gradients")
    for name, parameter in engine.parameters.items():
        if not engine.plan.weights[name].source.stored:
            continue  # stands for what the family has not
        found = parameter.to_array(parameter.gradient)
        wanted = in_place(engine.plan.weights[name], theirs, slope_alone=True)
        largest = max(np.abs(wanted).max(), SMALL)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * largest, err_msg=name)


STEPS = 10
DECAY = 0.1
SCHEDULE = Schedule("cosine", 1e-3, steps=STEPS + 2, warm_up=3)
MODELS = {
    "grouped heads": ("llama", LLAMA),
    "tied head": ("llama", LLAMA | dict(tie_word_embeddings=True)),
    "gpt2": ("gpt2", dict(n_embd=40, n_layer=2, n_head=4, n_positions=64, vocab_size=83)),
}


@pytest.mark.parametrize("name", MODELS)
def test_ten_steps_of_adamw_lead_to_the_weights_that_torch_has(tmp_path, name):
    """With clipping, groups, warm-up, weights of tokens, and a batch in parts."""
    model = made(*MODELS[name])
    engine = engine_of(model, tmp_path / "model")
    began = {name: parameter.to_array() for name, parameter in engine.parameters.items()}
    optimiser = AdamW(
        engine.parameters, weight_decay=DECAY, groups=[Group("*.mlp.*", learning_rate_factor=0.5, weight_decay=0.3)]
    )
    groups: dict[tuple[float, float], list] = {}
    for own, parameter in model.named_parameters():
        rule = (0.5, 0.3) if ".mlp." in own else (1.0, DECAY if parameter.ndim > 1 else 0.0)
        groups.setdefault(rule, []).append(parameter)
    theirs = torch.optim.AdamW(
        [dict(params=some, weight_decay=decay, factor=factor) for (factor, decay), some in groups.items()]
    )
    for step in range(STEPS):
        batch = texts(engine.vocab_size, step)
        for part in batch.split(18):
            engine.accumulate(part, objective("cross_entropy"), batch.weight)
        engine.finish()
        theirs.zero_grad()
        backward(model, batch)
        norm = optimiser.clip(0.5)
        want = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5).item()
        assert norm == pytest.approx(want, rel=1e-5) and norm > 0.5
        for group in theirs.param_groups:
            group["lr"] = SCHEDULE(step) * group["factor"]
        optimiser.step(SCHEDULE(step))
        theirs.step()
    tensors = stored(model, tmp_path / "stepped")
    for name, parameter in engine.parameters.items():
        if name.endswith("attn.k.bias"):
            continue  # its gradient is 0, and AdamW divides roundings of 0 by their size
        want = in_place(engine.plan.weights[name], tensors)
        np.testing.assert_allclose(parameter.to_array(), want, rtol=0, atol=1e-5, err_msg=name)
        assert np.abs(want - began[name]).max() > 1e-3, name


@pytest.mark.parametrize("name", CAUSAL)
def test_a_saved_model_is_the_same_to_transformers(tmp_path, name):
    model_type, raw = CASES[name]
    made(model_type, raw).save_pretrained(tmp_path / "model")
    with open_checkpoint(tmp_path / "model") as checkpoint:
        plan = plan_of(checkpoint)
        engine = Engine(plan, checkpoint.tensors, trainable(plan), rows=64, threads=2)
    batch = texts(engine.vocab_size)
    engine.accumulate(batch, objective("cross_entropy"), batch.weight)
    engine.finish()
    AdamW(engine.parameters).step(0.01)
    save_model(plan, engine.parameters, tmp_path / "model", tmp_path / "stepped")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "stepped", attn_implementation="eager", experts_implementation="eager"
    )
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    for i, (first, last) in enumerate(pairwise(batch.starts.tolist())):
        with torch.no_grad():
            want = loaded(torch.from_numpy(batch.part(i, i + 1).tokens.astype(int))[None]).logits[0].numpy()
        found = engine.logits(batch, np.arange(first, last))
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_pairs_of_low_rank_have_the_gradients_of_peft_which_reads_what_is_saved(tmp_path, tied):
    peft = pytest.importorskip("peft", reason=REASON.format("peft"))
    model = made("llama", LLAMA | dict(tie_word_embeddings=tied))
    model.save_pretrained(tmp_path / "model")
    random = np.random.default_rng(0)
    with open_checkpoint(tmp_path / "model") as checkpoint:
        lora = with_lora(plan_of(checkpoint), 3, 6.0)
        pairs = lora.tensors()
        for tensor in pairs.values():
            tensor.data[...] = random.standard_normal(tensor.shape) * 0.2
        engine = Engine(lora.plan, {**checkpoint.tensors, **pairs}, lora.trained, rows=64, threads=2)
    save_adapter(lora, engine.parameters, str(tmp_path / "model"), tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(model, tmp_path / "adapter", is_trainable=True).double()
    batch = texts(engine.vocab_size)
    want = backward(theirs, batch)
    assert engine.accumulate(batch, objective("cross_entropy"), batch.weight) == pytest.approx(want, rel=1e-5)
    engine.finish()
    gradients = {name: each.grad for name, each in theirs.named_parameters() if each.requires_grad}
    assert len(gradients) == len(engine.parameters)
    for name, parameter in engine.parameters.items():
        wanted = gradients[f"base_model.model.{name.removesuffix('.weight')}.default.weight"].numpy()
        found = parameter.to_array(parameter.gradient)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max(), err_msg=name)
