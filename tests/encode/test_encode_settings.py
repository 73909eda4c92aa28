"""Files of sentence-transformers: what each key means, and what is wrong with those that mean nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastdistill.checkpoint import Tensor
from fastdistill.checkpoint.folder import write_checkpoint
from fastdistill.encode import POOLINGS, EncodeSettings, read_settings
from fastdistill.errors import CheckpointError, UnsupportedError
from fastdistill.files import is_named
from fastdistill.sources import WANTED

ST = "sentence_transformers.models."
TRANSFORMER, POOLING = {"type": f"{ST}Transformer", "path": ""}, {"type": f"{ST}Pooling", "path": "1_Pooling"}
NORMALIZE = {"type": f"{ST}Normalize", "path": "2_Normalize"}


def folder(tmp_path, **files):
    """A folder of these JSON files, `__` for / and _ for a dot before json."""
    for name, value in files.items():
        path = tmp_path / (name.replace("__", "/") + ".json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
    return tmp_path


def test_an_empty_folder_means_the_mean(tmp_path):
    assert read_settings(tmp_path) == EncodeSettings()


def test_all_that_a_folder_may_say(tmp_path):
    said = read_settings(
        folder(
            tmp_path,
            modules=[TRANSFORMER, POOLING, NORMALIZE],
            **{
                "1_Pooling__config": {
                    "pooling_mode_cls_token": True,
                    "pooling_mode_mean_tokens": True,
                    "include_prompt": False,
                }
            },
            sentence_bert_config={"max_seq_length": 99, "do_lower_case": True},
            tokenizer_config={"model_max_length": 77},
            config_sentence_transformers={"prompts": {"query": "q: "}, "default_prompt_name": "query"},
        )
    )
    assert said == EncodeSettings(("cls", "mean"), True, (), 99, True, {"query": "q: "}, "query", False)


@pytest.mark.parametrize("name", POOLINGS)
def test_poolings_by_their_newer_names(tmp_path, name):
    given = folder(tmp_path, modules=[TRANSFORMER, POOLING], **{"1_Pooling__config": {"pooling_mode": name}})
    assert read_settings(given).poolings == (name,)


@pytest.mark.parametrize(
    "length, want", [(128, 128), (1000000000000000019884624838656, None), (0, None), (None, None), ("a", None)]
)
def test_without_its_own_length_the_tokenizers_counts(tmp_path, length, want):
    assert read_settings(folder(tmp_path, tokenizer_config={"model_max_length": length})).max_tokens == want


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_older_names_of_the_file_with_the_length(tmp_path, kind):
    assert read_settings(folder(tmp_path, **{f"sentence_{kind}_config": {"max_seq_length": 7}})).max_tokens == 7
    assert is_named(f"sentence_{kind}_config.json", WANTED)


@pytest.mark.parametrize(
    "files, error, match",
    [
        (dict(modules="{"), CheckpointError, "modules.json: is not valid JSON"),
        (dict(modules='[{"type": "a.Normalize", "type": "a.Pooling"}]'), CheckpointError, "'type' comes twice"),
        (dict(modules='[{"idx": NaN}]'), CheckpointError, "not a finite number"),
        (dict(modules="[" * 9999), CheckpointError, "is not valid JSON"),
        (dict(modules={}), CheckpointError, "must be a list"),
        (dict(modules=[1]), CheckpointError, "must be a list"),
        (dict(modules=[TRANSFORMER] * 17), CheckpointError, "at most 16"),
        (dict(modules=[{"path": "a"}]), CheckpointError, "type is missing"),
        (dict(modules=[{"type": "a.CLIPModel", "path": ""}]), UnsupportedError, "CLIPModel.*not supported"),
        (dict(modules=[POOLING | {"path": "../elsewhere"}]), CheckpointError, "within"),
        (dict(modules=[POOLING | {"path": "/etc"}]), CheckpointError, "within"),
        (dict(modules=[POOLING | {"path": "C:elsewhere"}]), CheckpointError, "within"),
        (dict(modules=[POOLING | {"path": "a\\..\\.."}]), CheckpointError, "within"),
        (dict(modules=[NORMALIZE, TRANSFORMER]), UnsupportedError, "Normalize, Transformer: this order"),
        (dict(modules=[POOLING, POOLING]), UnsupportedError, "Pooling, Pooling: this order"),
        (dict(modules=[TRANSFORMER | {"path": "0_Transformer"}]), UnsupportedError, "the model lies in '0_Transformer'"),
        (dict(modules=[POOLING]), CheckpointError, "names no pooling"),
        ({"modules": [POOLING], "1_Pooling__config": {"pooling_mode": "middle"}}, CheckpointError, "middle"),
        ({"modules": [POOLING], "1_Pooling__config": {"pooling_mode": 3}}, CheckpointError, "pooling_mode"),
        ({"modules": [POOLING], "1_Pooling__config": {"pooling_mode_cls_token": 1}}, CheckpointError, "true or false"),
        (dict(sentence_bert_config={"max_seq_length": 0}), CheckpointError, "max_seq_length"),
        (dict(sentence_bert_config=[]), CheckpointError, "sentence_bert_config"),
        (dict(config_sentence_transformers={"prompts": {"a": 1}}), CheckpointError, "must be text"),
        (dict(config_sentence_transformers={"default_prompt_name": "b"}), CheckpointError, "default_prompt_name"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(tmp_path, files, error, match):
    with pytest.raises(error, match=match):
        read_settings(folder(tmp_path, **files))


def test_a_linear_behind_the_pooling(tmp_path):
    matrix, bias = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, np.float32)
    config = {"in_features": 3, "out_features": 2, "activation_function": "torch.nn.modules.linear.Identity"}
    write_checkpoint(
        tmp_path / "made",
        config,
        [Tensor("linear.weight", "f32", (2, 3), matrix), Tensor("linear.bias", "f32", (2,), bias)],
    )
    dense = {"type": f"{ST}Dense", "path": "made"}
    (read,) = read_settings(folder(tmp_path, modules=[TRANSFORMER, dense])).dense
    np.testing.assert_array_equal(read.matrix, matrix)
    np.testing.assert_array_equal(read.bias, bias)
    assert read.activation == "Identity"
    (tmp_path / "made" / "config.json").write_text(json.dumps(config | {"out_features": 4}))
    with pytest.raises(CheckpointError, match=r"linear\.weight must be"):
        read_settings(tmp_path)
    (tmp_path / "made" / "config.json").write_text(json.dumps(config | {"activation_function": "a.GELU"}))
    with pytest.raises(UnsupportedError, match="GELU"):
        read_settings(tmp_path)
    for other in ({"use_residual": True}, {"module_input_name": "token_embeddings"}, {"module_output_name": "x"}):
        (tmp_path / "made" / "config.json").write_text(json.dumps(config | other))
        with pytest.raises(UnsupportedError, match=f"{next(iter(other))} = .* is not supported"):
            read_settings(tmp_path)
    (tmp_path / "made" / "model.safetensors").unlink()
    (tmp_path / "made" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="no such file"):
        read_settings(tmp_path)
