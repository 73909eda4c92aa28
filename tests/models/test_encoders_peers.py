"""Every encoder family beside transformers: random checkpoints of odd shapes, and every key of its config changed in turn."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.encode import POOLINGS
from fastdistill.runtime.encode import hidden_states, pooled
from tests.changed_keys import assert_never_silently_wrong
from tests.encoders import CASES, OF_TYPE

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

TOLERANCE = 1e-4  # of the largest number, both in float32
FLAG = st.booleans()
ACTIVATION = st.sampled_from(["gelu", "gelu_new", "silu", "relu"])
OPTIONS: dict[str, dict[str, st.SearchStrategy]] = {
    "bert": dict(type_vocab_size=st.integers(1, 3), hidden_act=ACTIVATION, layer_norm_eps=st.sampled_from([1e-12, 1e-3])),
    "roberta": dict(type_vocab_size=st.integers(1, 2), hidden_act=ACTIVATION, pad_token_id=st.integers(0, 3)),
    "xlm-roberta": dict(type_vocab_size=st.just(1)),
    "camembert": dict(type_vocab_size=st.just(1)),
    "distilbert": dict(activation=st.sampled_from(["gelu", "relu"])),
    "mpnet": dict(hidden_act=ACTIVATION),
    "modernbert": dict(
        attention_bias=FLAG, mlp_bias=FLAG, norm_bias=FLAG, hidden_activation=ACTIVATION, local_attention=st.sampled_from([2, 8, 32]),
        global_attn_every_n_layers=st.integers(1, 3), classifier_bias=FLAG, classifier_pooling=st.sampled_from(["cls", "mean"]),
    ),
}  # fmt: skip
SPELT = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads", "intermediate_size": "hidden_dim"}  # fmt: skip


def made(folder: Path, kind: str, raw: dict[str, Any], seed: int = 0):
    """A random model of transformers, saved: norms, biases and matrices far from their tidy beginnings."""
    config = transformers.AutoConfig.for_model(**raw)
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.12))
    model.save_pretrained(folder)
    return model


def theirs(model, tokens: list[int]) -> dict[str, np.ndarray]:
    with torch.no_grad():
        out = model(torch.tensor([tokens]), output_hidden_states=True)
    last = getattr(out, "last_hidden_state", None)
    said = {"hidden": (out.hidden_states[-1] if last is None else last)[0].numpy()}
    logits = getattr(out, "logits", None)
    if logits is None:
        logits = getattr(out, "prediction_logits", None)
    if logits is not None:
        said["logits" if logits.ndim == 3 else "scores"] = logits[0].numpy()
    if getattr(out, "pooler_output", None) is not None:
        said["pooled"] = out.pooler_output[0].numpy()
    return said


def assert_alike(model, folder: Path, tokens: list[int]) -> None:
    want = theirs(model, tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # keys that no plan knows: whether they matter is what is tried here
        ours = fd.load(folder, threads=2)
    columns = np.array([tokens, np.zeros(len(tokens))][: ours.plan.token_columns], np.int32)
    (hidden,) = hidden_states(ours.network, [columns])
    got = {"hidden": hidden}
    if "logits" in want:
        got["logits"] = ours.logits(tokens)
    if ours.plan.pooling:
        made = pooled(ours.network, POOLINGS[ours.plan.pooling](hidden)[None])
        got |= {name: values[0] for name, values in made.items()}
    for name, values in want.items():
        np.testing.assert_allclose(got[name], values, atol=TOLERANCE * np.abs(values).max(), err_msg=name)


@pytest.mark.parametrize("model_type", OPTIONS)
def test_random_checkpoints_of_odd_shapes_are_alike(tmp_path_factory, model_type):
    kinds = [kind for its, kind, _ in CASES.values() if its == model_type]

    @settings(max_examples=15)
    @given(
        kind=st.sampled_from(kinds), heads=st.integers(1, 4), head_dim=st.sampled_from([2, 6, 16, 18, 34]), inner=st.integers(1, 70),
        layers=st.integers(1, 4), labels=st.integers(1, 4), more=st.fixed_dictionaries({}, optional=OPTIONS[model_type]),
        length=st.sampled_from([1, 2, 17, 90]), seed=st.integers(0, 9),
    )  # fmt: skip
    def check(kind, heads, head_dim, inner, layers, labels, more, length, seed):
        raw = dict(
            hidden_size=heads * head_dim, num_attention_heads=heads, intermediate_size=inner, num_hidden_layers=layers, vocab_size=83,
            max_position_embeddings=96, pad_token_id=1, num_labels=labels,
        )  # fmt: skip
        if model_type == "distilbert":
            raw = {SPELT.get(key, key): value for key, value in raw.items()}
        folder = tmp_path_factory.mktemp("model")
        model = made(folder, kind, {"model_type": model_type} | raw | more, seed)
        assert_alike(model, folder, np.random.default_rng(seed).integers(4, 83, length).tolist())

    check()


CHANGES: dict[str, list[object]] = {
    "hidden_act": ["gelu_new", "relu", "mish"],
    "hidden_activation": ["gelu_new", "silu", "mish"],
    "activation": ["relu", "silu"],
    "classifier_activation": ["silu", "relu"],
    "classifier_pooling": ["mean"],
    "layer_types": [["full_attention"] * 4, ["sliding_attention"] * 4],
    "position_embedding_type": ["relative_key", "relative_key_query"],
    "problem_type": ["regression", "multi_label_classification"],
}
NEVER = {"model_type", "architectures", "dtype", "transformers_version", "id2label", "label2id"}


@pytest.mark.parametrize(
    "name",
    [*OF_TYPE.values(), "bert, labels", "bert, masks", "modernbert, labels", "modernbert, masks", "mpnet, labels"],
)
def test_a_changed_key_changes_what_theirs_computes_and_ours_alike_or_is_refused(tmp_path_factory, name):
    """Never a silently wrong model: whatever the key, ours loads what theirs has saved and agrees, or says what it lacks."""
    model_type, kind, raw = CASES[name]
    whole = transformers.AutoConfig.for_model(**{"model_type": model_type} | raw).to_dict()
    tokens = np.random.default_rng(1).integers(4, 83, 30).tolist()

    def make(folder, change):
        model = made(folder, kind, {"model_type": model_type} | raw | change)
        theirs(model, tokens)
        return model

    refused = assert_never_silently_wrong(
        whole,
        CHANGES,
        NEVER,
        lambda: tmp_path_factory.mktemp("model"),
        make,
        lambda model, folder: assert_alike(model, folder, tokens),
    )
    print(name, "refused:", sorted(refused))


# ---- the real model ----


@pytest.fixture(scope="module")
def minilm():
    """all-minilm-l6-v2, where it has been fetched, ours and sentence-transformers'."""
    from fastdistill.fetch import cached_folder, is_fetched

    st_ = pytest.importorskip("sentence_transformers")
    if not is_fetched("all-minilm-l6-v2"):
        pytest.skip("needs all-minilm-l6-v2: fastdistill fetch all-minilm-l6-v2")
    folder = cached_folder("all-minilm-l6-v2")
    return folder, st_.SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("format, least", [("f32", 0.9999), ("f16", 0.9999), ("q8", 0.999)])
def test_minilm_has_the_vectors_of_sentence_transformers(minilm, format, least):
    folder, other = minilm
    model = fd.load(folder, format=format)
    pairs = questions()
    texts = [text for pair in pairs for text in pair]
    got, want = model.encode(texts), other.encode(texts, show_progress_bar=False)
    cosines = (got * want).sum(axis=1)
    assert cosines.min() >= least, cosines.min()
    if format == "f32":  # each pair's similarity, in the same order
        ours, their = ((both[::2] * both[1::2]).sum(axis=1) for both in (got, want))
        assert np.argsort(ours).tolist() == np.argsort(their).tolist()


def questions() -> list[tuple[str, str]]:
    """200 pairs of sentences of the package's passages."""
    from fastdistill import embedded

    prompts = Path(embedded.__file__).with_name("prompts") / "passages.txt"
    sentences = [part.strip() for part in prompts.read_text("utf-8").replace("\n", " ").split(". ") if len(part) > 20]
    assert len(sentences) >= 400
    return list(zip(sentences[:200], sentences[200:400], strict=True))


@pytest.mark.parametrize("included", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_their_files_are_read_as_they_read_them(tmp_path, minilm, pooling, included):
    """Prompts and another pooling, written into a copy."""
    import shutil

    folder, _ = minilm
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 384, "pooling_mode": pooling, "include_prompt": included})
    )
    (tmp_path / "model" / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "find: "}}))
    other = pytest.importorskip("sentence_transformers").SentenceTransformer(str(tmp_path / "model"), device="cpu")
    texts = [pair[0] for pair in questions()[:20]]
    got = fd.load(tmp_path / "model").encode(texts, prompt_name="query")
    want = other.encode(texts, prompt_name="query", show_progress_bar=False)
    assert (got * want).sum(axis=1).min() >= 0.99999
