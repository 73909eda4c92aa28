"""encode, rank and classify: against the passes below them, in any company, and bad input."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.checkpoint.safetensors_file import Stored, write_safetensors
from fastdistill.encode import POOLINGS
from fastdistill.errors import ArgumentError, CheckpointError, NotFiniteError, TextError, UnsupportedError
from fastdistill.models import quantize_folder
from fastdistill.runtime.encode import hidden_states, pooled
from tests.encode.test_encode_settings import NORMALIZE, POOLING, TRANSFORMER
from tests.encoders import WORDS, write_encoder

TEXTS = ["one text", "another text is one of the texts", "query", "", "two three four five six seven eight nine ten"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model of a case, by name, and what files beside it say."""
    models = {}

    def make(name: str = "bert", files=None, **changes):
        key = repr((name, files, changes))
        if key not in models:
            folder = write_encoder(tmp_path_factory.mktemp("models") / "model", name, files, **changes)
            models[key] = fd.load(folder, threads=2)
        return models[key]

    return make


def alone(model, text: str, pair: str | None = None) -> np.ndarray:
    """Hidden states of a text, by its tokens."""
    ids, types, _ = model.tokenizer.encode_parts(text, pair, 96)
    return next(hidden_states(model.network, [np.array([ids, types][: model.plan.token_columns], np.int32)]))


@pytest.mark.parametrize("pooling", [*POOLINGS, "pooler"])
@pytest.mark.parametrize("normalize", [False, True])
def test_vectors_are_rows_pooled(made, pooling, normalize):
    model = made()
    got = model.encode(TEXTS, pooling=pooling, normalize_embeddings=normalize)
    assert got.shape == (len(TEXTS), 40) and got.dtype == np.float32
    for text, vector in zip(TEXTS, got, strict=True):
        hidden = alone(model, text)
        want = pooled(model.network, hidden[:1])["pooled"][0] if pooling == "pooler" else POOLINGS[pooling](hidden)
        if normalize:
            np.testing.assert_allclose(vector, want / np.linalg.norm(want), atol=1e-6)
            assert abs(np.linalg.norm(vector) - 1) < 1e-6
        else:
            np.testing.assert_array_equal(vector, want)


@settings(max_examples=8)
@given(
    texts=st.lists(st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=30).map(" ".join), max_size=9),
    size=st.none() | st.integers(1, 4), data=st.data(),
)  # fmt: skip
def test_a_text_has_the_same_bits_alone_and_among_others(made, texts, size, data):
    model = made(
        "bert", {"modules.json": [TRANSFORMER, POOLING, NORMALIZE], "1_Pooling/config.json": {"pooling_mode": "mean"}}
    )
    order = data.draw(st.permutations(range(len(texts))))
    got = model.encode([texts[i] for i in order], batch_size=size)
    assert got.shape == (len(texts), 40)
    for i, vector in zip(order, got, strict=True):
        np.testing.assert_array_equal(vector, model.encode(texts[i]))


def test_several_poolings_lie_side_by_side_and_a_linear_follows(made, tmp_path):
    files = {"modules.json": [TRANSFORMER, POOLING], "1_Pooling/config.json": {"pooling_mode": ["mean", "cls"]}}
    model = made("bert", files)
    hidden = alone(model, "one two")
    np.testing.assert_array_equal(model.encode("one two"), np.concatenate([hidden[0], POOLINGS["mean"](hidden)]))
    np.testing.assert_array_equal(model.encode("one two", pooling="max"), hidden.max(axis=0))


def test_a_vector_may_be_cut_and_is_normalised_afterwards(made):
    model = made()
    whole, cut = model.encode(TEXTS), model.encode(TEXTS, truncate_dim=7, normalize_embeddings=True)
    np.testing.assert_allclose(cut, whole[:, :7] / np.linalg.norm(whole[:, :7], axis=1, keepdims=True), atol=1e-6)
    assert model.encode(TEXTS, truncate_dim=1000).shape == (5, 40)


def test_prompts_stand_before_texts(made):
    prompts = {"prompts": {"query": "query ", "answer": "answer "}, "default_prompt_name": "answer"}
    model = made("bert", {"config_sentence_transformers.json": prompts})
    same = np.testing.assert_array_equal
    same(model.encode("one", prompt_name="query"), model.encode("query one", prompt=""))
    same(model.encode("one"), model.encode("answer one", prompt=""))
    same(model.encode("one", prompt="two "), model.encode("two one", prompt=""))
    with pytest.raises(ArgumentError, match="query, answer, got 'document'"):
        model.encode("one", prompt_name="document")


def test_a_prompt_may_be_left_out_of_the_pooling(made, tmp_path):
    files = {
        "modules.json": [TRANSFORMER, POOLING],
        "1_Pooling/config.json": {"pooling_mode": "mean", "include_prompt": False},
    }
    model = made("bert", files)
    hidden = alone(model, "query one two")  # [CLS] query one two [SEP]
    np.testing.assert_array_equal(model.encode("one two", prompt="query "), POOLINGS["mean"](hidden[2:]))
    first = pooled(model.network, hidden[:1])["pooled"][0]  # the model's own reads the first row, whatever that is
    np.testing.assert_array_equal(model.encode("one two", prompt="query ", pooling="pooler"), first)
    bare = write_encoder(tmp_path / "model", files=files)
    said = json.loads((bare / "tokenizer.json").read_text("utf-8")) | {"post_processor": None}
    (bare / "tokenizer.json").write_text(json.dumps(said), "utf-8")
    model = fd.load(bare)
    hidden = alone(model, "query one two")  # no special token behind the prompt, which would be counted as one of it
    np.testing.assert_array_equal(model.encode("one two", prompt="query "), POOLINGS["mean"](hidden[1:]))


def test_lower_case_is_a_settings(made):
    model = made("bert", {"sentence_bert_config.json": {"do_lower_case": True}})
    np.testing.assert_array_equal(model.encode("ONE Text"), model.encode("one text"))


# ---- ranks and labels ----


def test_vectors_rank_by_their_cosine(made):
    prompts = {"prompts": {"query": "query ", "document": "answer "}}
    model = made("bert", {"config_sentence_transformers.json": prompts})
    documents = [*TEXTS, TEXTS[0]]
    ranked = model.rank("one", documents)
    asked = model.encode("one", prompt_name="query", normalize_embeddings=True)
    scores = model.encode(documents, prompt_name="document", normalize_embeddings=True) @ asked
    assert [each.index for each in ranked] == np.argsort(-scores, kind="stable").tolist()
    assert [each.text for each in ranked] == [documents[each.index] for each in ranked]
    np.testing.assert_allclose([each.score for each in ranked], np.sort(scores)[::-1], atol=1e-6)
    places = [each.index for each in ranked]
    assert places.index(0) + 1 == places.index(5)  # equal ones in their order
    assert model.rank("one", documents, top_k=2) == ranked[:2] and model.rank("one", []) == []


@pytest.mark.parametrize("raw", [False, True])
def test_a_cross_encoder_reads_both_together(made, raw):
    changes = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}} if raw else {}
    model = made("bert, labels", id2label={"0": "fits"}, **changes)
    ranked = model.rank("one two", TEXTS)
    scores = [float(pooled(model.network, alone(model, "one two", text)[:1])["scores"][0, 0]) for text in TEXTS]
    assert [each.index for each in ranked] == np.argsort(-np.array(scores), kind="stable").tolist()
    want = np.array(sorted(scores, reverse=True))
    np.testing.assert_allclose([each.score for each in ranked], want if raw else 1 / (1 + np.exp(-want)), atol=1e-6)
    with pytest.raises(UnsupportedError, match="one label"):
        made("bert, labels").rank("one", TEXTS)


@pytest.mark.parametrize("name", ["bert, labels", "roberta, labels", "distilbert, labels", "modernbert, labels"])
def test_labels_have_probabilities(made, name):
    model = made(name)
    found = model.classify([*TEXTS, ("one", "two")])
    for text, each in zip([(text, None) for text in TEXTS] + [("one", "two")], found, strict=True):
        hidden = alone(model, *text)
        row = POOLINGS[model.plan.pooling](hidden)
        logits = pooled(model.network, row[None])["scores"][0].astype(np.float64)
        want = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose([each.scores[label] for label in model.plan.labels], want, atol=1e-6)
        assert each.label == model.plan.labels[int(np.argmax(want))] and each.score == max(each.scores.values())
    assert model.classify("one text") == found[0] and model.classify(("one", "two")) == found[-1]
    assert model.classify([]) == []


def test_labels_that_do_not_exclude_each_other(made):
    model = made("bert, labels", problem_type="multi_label_classification")
    logits = pooled(model.network, alone(model, "one")[:1])["scores"][0].astype(np.float64)
    np.testing.assert_allclose([*model.classify("one").scores.values()], 1 / (1 + np.exp(-logits)), atol=1e-6)
    numbers = made("bert, labels", problem_type="regression").classify("one").scores
    np.testing.assert_allclose([*numbers.values()], logits, atol=1e-6)


# ---- masks ----


@pytest.mark.parametrize("name", ["bert, masks", "roberta, masks", "modernbert, masks"])
def test_a_masked_head_fills_what_the_tokenizer_calls_masks(made, name):
    """Behind [CLS] and the prompt's words: most certain first, one a step, as by hand."""
    model = made(name)
    mask = model.tokenizer.token_id("[MASK]")
    assert model.plan.mask_token == mask
    got = model.generate("one two", max_tokens=3)
    ids = [*model.tokenizer.encode("one two")[:-1], mask, mask, mask]
    assert got.stats.prompt_tokens == len(ids) - 3
    while mask in ids:
        logits = model.logits(ids).astype(np.float64)
        logits[:, mask] = -np.inf
        certain = logits.max(axis=1) - np.log(np.exp(logits).sum(axis=1))
        place = max((i for i in range(len(ids)) if ids[i] == mask), key=lambda i: certain[i])
        ids[place] = int(logits[place].argmax())
    assert got.tokens == ids[-3:]
    assert np.isfinite(model.encode("one two")).all()


# ---- bad input ----


def test_long_texts_are_cut_and_that_is_said_once(made):
    model = made()
    with pytest.warns(UserWarning, match="2 of 3 texts are longer than the 96 tokens") as said:
        got = model.encode(["one " * 500, "two", "three " * 95])
    assert len(said) == 1
    np.testing.assert_array_equal(got[0], model.encode("one " * 94))
    short = made("bert", {"sentence_bert_config.json": {"max_seq_length": 6}})
    with pytest.warns(UserWarning, match="6 tokens"):
        np.testing.assert_array_equal(short.encode("one two three four five"), short.encode("one two three four"))
    long = made("bert", {"sentence_bert_config.json": {"max_seq_length": 512}})  # more than the model's positions
    with pytest.warns(UserWarning, match="the 96 tokens"):
        np.testing.assert_array_equal(long.encode("one " * 500), got[0])


@pytest.mark.parametrize(
    "first, second, most, want",
    [(3, 3, 20, (3, 3)), (9, 2, 10, (5, 2)), (2, 9, 10, (2, 5)), (9, 9, 10, (3, 4)), (4, 9, 10, (3, 4)), (9, 4, 10, (4, 3)), (1, 50, 5, (1, 1))],
)  # fmt: skip
def test_of_a_pair_the_longer_text_gives_way(made, first, second, most, want):
    """As `tokenizers` cuts "longest first": three special tokens stand around a pair."""
    tokenizer = made().tokenizer
    ids, types, cut = tokenizer.encode_parts("one " * first, "two " * second, most)
    assert (ids.count(tokenizer.token_id("one")), ids.count(tokenizer.token_id("two"))) == want
    assert (
        len(ids) == sum(want) + 3
        and cut == (first + second + 3 > most)
        and types == [0] * (want[0] + 2) + [1] * (want[1] + 1)
    )
    from tokenizers import Tokenizer

    theirs = Tokenizer.from_file(str(made().folder / "tokenizer.json"))
    theirs.enable_truncation(most, strategy="longest_first")
    assert theirs.encode("one " * first, "two " * second).ids == ids


def test_a_million_characters_and_only_special_tokens(made):
    model = made()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isfinite(model.encode("one " * 250_000)).all()
    assert np.isfinite(model.encode(["", "[SEP] [SEP]", "[PAD]"])).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.encode(5), lambda model: model.encode([5]), lambda model: model.encode(b"one"),
        lambda model: model.encode(["a", ("b", "c")]), lambda model: model.encode("\ud800"),
        lambda model: model.encode("a", batch_size=0), lambda model: model.encode("a", pooling="middle"),
        lambda model: model.encode("a", pooling=3), lambda model: model.encode("a", truncate_dim=0),
        lambda model: model.encode("a", normalize_embeddings=1), lambda model: model.encode("a", prompt=3),
        lambda model: model.encode("a", show_progress_bar="yes"), lambda model: model.rank(3, ["a"]),
        lambda model: model.rank("a", ["b", 3]), lambda model: model.rank("a", ["b"], top_k=0),
    ],
)  # fmt: skip
def test_arguments_are_refused(made, call):
    with pytest.raises(ArgumentError):
        call(made())


def test_what_a_model_cannot_do_is_said(made):
    with pytest.raises(UnsupportedError, match="no classifier"):
        made().classify("a")
    with pytest.raises(UnsupportedError, match="pooler"):
        made("distilbert").encode("a", pooling="pooler")


@pytest.mark.parametrize(
    "inputs, number, error, match",
    [
        (41, 1, CheckpointError, "in_features 41, and is given vectors of 40"),
        (40, np.nan, CheckpointError, r"linear\.weight holds a NaN"),
        (40, 3e38, NotFiniteError, "text 0 has .* infinity"),
    ],
)
def test_a_linear_behind_the_pooling_fits_and_gives_numbers(tmp_path, inputs, number, error, match):
    said = {"in_features": inputs, "out_features": 2, "bias": False, "activation_function": "Identity"}
    dense = {"type": "a.Dense", "path": "made"}
    folder = write_encoder(tmp_path / "model", files={"modules.json": [TRANSFORMER, dense], "made/config.json": said})
    matrix = Stored("F32", np.full((2, inputs), number, np.float32))
    write_safetensors(folder / "made" / "model.safetensors", {"linear.weight": matrix})
    with pytest.raises(error, match=match):
        fd.load(folder).encode(["one text"])


def test_a_quantised_folder_makes_vectors_in_the_same_way(tmp_path):
    """All that sentence-transformers has beside the weights is taken along, a Dense's weights too, as they are."""
    said = {"in_features": 40, "out_features": 2, "bias": False}
    modules = [TRANSFORMER, POOLING, {"type": "a.Dense", "path": "2_Dense"}, NORMALIZE]
    beside = {"modules.json": modules, "1_Pooling/config.json": {"pooling_mode": "cls"}, "2_Dense/config.json": said}
    folder = write_encoder(tmp_path / "model", files=beside)
    write_safetensors(folder / "2_Dense" / "model.safetensors", {"linear.weight": Stored("F32", np.eye(2, 40, dtype=np.float32))})  # fmt: skip
    quantize_folder(folder, tmp_path / "made", "f32")
    np.testing.assert_array_equal(fd.load(folder).encode(TEXTS), fd.load(tmp_path / "made").encode(TEXTS))
    assert fd.load(folder).encode("one").shape == (2,)


@pytest.mark.parametrize("what", ["id", "part"])
def test_a_tokenizer_that_names_tokens_or_parts_that_the_model_has_not_is_refused(tmp_path, what):
    """Nothing is looked up behind a table's end, whatever the files say."""
    folder = write_encoder(tmp_path / "model")
    said = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    if what == "id":
        said["model"]["vocab"]["one"] = 1 << 30
    else:
        said["post_processor"]["single"][1]["Sequence"]["type_id"] = 1 << 30
    (folder / "tokenizer.json").write_text(json.dumps(said), "utf-8")
    with pytest.raises((ArgumentError, TextError), match=r"embeddings|tokens"):
        fd.load(folder).encode("one")


def test_a_folder_without_a_tokenizer_says_so(tmp_path):
    folder = write_encoder(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TextError, match=r"tokenizer\.json is missing"):
        fd.load(folder).encode("a")


def test_a_bar_counts_texts(made, capsys):
    made().encode(["one"] * 9, show_progress_bar=True)
    assert "encode" in capsys.readouterr().err
