"""Folders to GGUF files and back: nothing is lost on the way, and what llama.cpp computes otherwise is refused."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import fastdistill as fd
from fastdistill.checkpoint import Checkpoint, Tensor, open_checkpoint, quantize_tensor, write_checkpoint
from fastdistill.checkpoint.config import Config
from fastdistill.checkpoint.gguf import ARCHITECTURES, convert_gguf, export_checkpoint
from fastdistill.checkpoint.gguf.config import architecture_for
from fastdistill.errors import ArgumentError, CheckpointError, UnsupportedError
from fastdistill.models import export_folder
from fastdistill.models.families import DEFAULTS
from tests.checkpoint.gguf_files import TOKENS, gguf
from tests.checkpoint.tiny_families import FAMILIES, OTHERS, bits, stored, tiny_config, tokenizer_files, write_tiny

EVERY = FAMILIES | OTHERS


def exported(tmp_path, format=None, **options):
    with open_checkpoint(tmp_path / "folder") as checkpoint:
        export_checkpoint(checkpoint, tmp_path / "model.gguf", format, **options)
    return tmp_path / "model.gguf"


def returned(tmp_path, **options):
    return convert_gguf(exported(tmp_path, **options), tmp_path / "out")


def read_back(path):
    """A file as the package gguf reads it: fields by name, tensors by name."""
    reader = gguf.GGUFReader(path)
    return {name: field.contents() for name, field in reader.fields.items()}, {t.name: t for t in reader.tensors}


def refused(tmp_path, error, words, format=None):
    with pytest.raises(error, match=words):
        exported(tmp_path, format)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_every_record_has_a_tiny_family():
    found = {config["model_type"] for config in EVERY.values()}
    assert found == {name for architecture in ARCHITECTURES for name in architecture.model_types}


# Keys whose meaning the tensors' shapes have, or which bound the context.
IMPLIED = {
    "head_dim",
    "mlp_ratio",
    "max_window_layers",
    "sliding_window",
    "original_max_position_embeddings",
    "num_kv_heads",  # of the older Falcons always 1
    "num_ln_in_parallel_attn",  # of those that have two
}


@pytest.mark.parametrize("model_type", [name for architecture in ARCHITECTURES for name in architecture.model_types])
def test_each_key_that_a_family_computes_with_is_written_or_compared(model_type):
    architecture = architecture_for(Config({"model_type": model_type}))
    flags = {flag.removeprefix("not ") for flag in architecture.flags}
    facts = architecture.facts | architecture.silent | {"is_causal": not architecture.mask}
    keys = {name for names in architecture.keys.values() for name in names.rstrip("?").split("|")}
    keys |= {"vocab_size", "mask_token_id", architecture.theta, architecture.partial, architecture.local_theta}
    assert DEFAULTS[model_type].keys() - IMPLIED <= keys | flags | facts.keys()
    for key, default in DEFAULTS[model_type].items():  # what an absent key means is what the class says
        if key in facts | dict.fromkeys(flags) and default is not None and not callable(facts.get(key)):
            assert architecture.absent.get(key, facts.get(key, False)) == default, key


@pytest.mark.parametrize("format", ["f32", "bf16", "q8", "q4"])
@pytest.mark.parametrize("name", EVERY)
def test_a_folder_returns_as_it_was(tmp_path, name, format):
    write_tiny(tmp_path / "folder", name, format)
    folder = returned(tmp_path)
    before, after = stored(tmp_path / "folder"), stored(folder)
    assert before.keys() == after.keys()
    for tensor, there in before.items():
        again = after[tensor]
        if there.format == again.format:
            assert bits(again) == bits(there), tensor
        else:  # GPT-2's transposes
            assert again.format == "f32" and name == "gpt2" and ".c_" in tensor
            assert np.array_equal(again.to_float32(), there.to_float32())


@pytest.mark.parametrize("name", EVERY)
def test_a_config_returns_as_it_was(tmp_path, name):
    config = write_tiny(tmp_path / "folder", name)
    found = json.loads((returned(tmp_path) / "config.json").read_text())
    if name == "mistral":
        config = config | {"model_type": "llama", "sliding_window": None}
    assert {key: found.get(key) for key in config if key != "hidden_act"} == {
        key: value for key, value in config.items() if key != "hidden_act"
    }


@pytest.mark.parametrize("name", EVERY)
def test_old_and_new_spellings_of_rotary_positions_are_one(tmp_path, name):
    """transformers 5 writes rope_parameters, of Gemma 3 one of each kind of layer."""
    config = write_tiny(tmp_path / "folder", name)
    old, _ = read_back(exported(tmp_path))
    architecture = architecture_for(Config(config))
    rope = dict(Config(config).section("rope_parameters").raw)
    for key, new in ((architecture.theta, "rope_theta"), (architecture.partial, "partial_rotary_factor")):
        if key in config:
            rope[new] = config[key]
    kept = {key: value for key, value in config.items() if not key.startswith(("rope_", "rotary_", "partial_rotary"))}
    if architecture.local_theta:
        rope = {"full_attention": rope, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}
    (tmp_path / "folder/config.json").write_text(json.dumps(kept | {"rope_parameters": rope}))
    new, _ = read_back(exported(tmp_path, overwrite=True))
    assert {key: value for key, value in new.items() if "name" not in key} == {
        key: value for key, value in old.items() if "name" not in key
    }


@pytest.mark.parametrize(("format", "kind"), [("q8", "Q8_0"), ("q4", "Q4_1"), ("bf16", "BF16"), ("f16", "F16")])
@pytest.mark.parametrize("asked", [False, True])
def test_the_file_holds_the_same_numbers(tmp_path, format, kind, asked):
    """As the package gguf reads them: what was stored, or asked for."""
    write_tiny(tmp_path / "folder", "qwen3_moe", "f32" if asked else format)
    path = exported(tmp_path, format if asked else None)
    fields, tensors = read_back(path)
    assert fields["qwen3moe.expert_count"] == 4 and fields["general.architecture"] == "qwen3moe"
    write_tiny(tmp_path / "same", "qwen3_moe", format)
    here = stored(tmp_path / "same")
    for theirs, ours in {
        "blk.1.attn_q.weight": ["model.layers.1.self_attn.q_proj.weight"],
        "blk.2.ffn_down_exps.weight": [f"model.layers.2.mlp.experts.{i}.down_proj.weight" for i in range(4)],
        "token_embd.weight": ["model.embed_tokens.weight"],
    }.items():
        found = tensors[theirs]
        assert found.tensor_type.name == kind
        values = gguf.quants.dequantize(found.data, found.tensor_type)
        assert np.array_equal(
            values.reshape(len(ours), -1), np.stack([here[name].to_float32().ravel() for name in ours])
        )
    assert {tensor.tensor_type.name for tensor in tensors.values() if "norm" in tensor.name} == {"F32"}


def test_rows_that_are_no_whole_blocks_become_f32(tmp_path):
    write_tiny(tmp_path / "folder", "llama", "q8", intermediate_size=50)
    _, tensors = read_back(exported(tmp_path))
    assert tensors["blk.0.ffn_down.weight"].tensor_type.name == "F32"
    assert tensors["blk.0.ffn_up.weight"].tensor_type.name == "Q8_0"
    found = stored(convert_gguf(tmp_path / "model.gguf", tmp_path / "out"))
    name = "model.layers.0.mlp.down_proj.weight"
    assert np.array_equal(found[name].to_float32(), stored(tmp_path / "folder")[name].to_float32())


def test_experts_of_several_formats_become_f32(tmp_path):
    write_tiny(tmp_path / "folder", "mixtral", "q8")
    tensors = stored(tmp_path / "folder")
    name = "model.layers.0.block_sparse_moe.experts.1.w1.weight"
    tensors[name] = quantize_tensor(Tensor(name, "f32", tensors[name].shape, tensors[name].to_float32()), "q4")
    write_checkpoint(tmp_path / "folder", tiny_config("mixtral"), tensors.values(), tokenizer_files(), overwrite=True)
    found = stored(returned(tmp_path))
    for i in range(4):
        again = found[f"model.layers.0.block_sparse_moe.experts.{i}.w1.weight"]
        assert again.format == "f32" and np.array_equal(again.to_float32(), tensors[again.name].to_float32())


@pytest.mark.parametrize("same", [True, False])
def test_a_head_beside_the_embedding_that_it_is(tmp_path, same):
    write_tiny(tmp_path / "folder", "llama 3")
    tensors = stored(tmp_path / "folder")
    data = tensors["model.embed_tokens.weight"].data + np.float32(0 if same else 1)
    tensors["lm_head.weight"] = Tensor("lm_head.weight", "f32", data.shape, data)
    write_checkpoint(tmp_path / "folder", tiny_config("llama 3"), tensors.values(), tokenizer_files(), overwrite=True)
    if same:
        assert "output.weight" not in read_back(exported(tmp_path))[1]
    else:
        refused(tmp_path, CheckpointError, "holds another lm_head")


def test_gpt2_without_its_first_word(tmp_path):
    """As it was first published, with its masks."""
    write_tiny(tmp_path / "folder", "gpt2")
    before = stored(tmp_path / "folder")
    short = {name.removeprefix("transformer."): tensor for name, tensor in before.items()}
    mask = np.zeros((1, 1, 4, 4), np.float32)
    tensors = [Tensor(name, tensor.format, tensor.shape, tensor.data) for name, tensor in short.items()]
    tensors.append(Tensor("h.0.attn.bias", "f32", mask.shape, mask))
    write_checkpoint(tmp_path / "folder", tiny_config("gpt2"), tensors, tokenizer_files(), overwrite=True)
    after = stored(returned(tmp_path))
    assert {name: bits(tensor) for name, tensor in after.items()} == {
        name: bits(tensor) for name, tensor in before.items()
    }


# --- what llama.cpp computes otherwise --------------------------------------------------------------------------------

FACTS = [
    (name, key)
    for name, config in EVERY.items()
    if name in (config["model_type"], "falcon 40")
    for architecture in [architecture_for(Config(config))]
    for key in architecture.facts | architecture.silent
    if key != "new_decoder_architecture"  # by which Falcon's two records are told apart
]


def other(value):
    """A value of the same kind that is not this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return (
            [*value[:-1], "sliding_attention" if value[-1:] == ["full_attention"] else "full_attention"]
            if value
            else [1]
        )
    return {int: 7, float: 7.5, str: "relu", type(None): 30.0}[type(value)]


@pytest.mark.parametrize(("name", "key"), FACTS)
def test_what_llama_cpp_takes_for_granted_is_compared(tmp_path, name, key):
    write_tiny(tmp_path / "folder", name)
    with open_checkpoint(tmp_path / "folder") as checkpoint:
        export_checkpoint(checkpoint, tmp_path / "model.gguf")
    architecture = architecture_for(Config(tiny_config(name)))
    fact = (architecture.facts | architecture.silent)[key]
    lengths = {
        "layers": tiny_config(name).get("num_hidden_layers", 3),
        "head": 32,
        "width": 64,
        "heads": 2,
        "vocab": 300,
    }
    changed = tiny_config(name) | {key: other(fact(lengths) if callable(fact) else fact)}
    (tmp_path / "model.gguf").unlink()
    (tmp_path / "folder/config.json").write_text(json.dumps(changed))
    refused(tmp_path, UnsupportedError, f"{key} is .*llama.cpp's {architecture.name} has")


@pytest.mark.parametrize(
    ("name", "changes", "error", "words"),
    [
        ("llama", {"model_type": "mamba"}, UnsupportedError, "'mamba' cannot be written as GGUF; llama, mistral"),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, UnsupportedError, "rope_type 'dynamic'"),
        ("qwen2", {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, UnsupportedError, "rope_type 'longrope'"),
        ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, CheckpointError, "original_max_position"),
        ("qwen2 yarn", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32, "attention_factor": 1.0}},
         UnsupportedError, "yarn's scores"),
        ("qwen2 yarn", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32, "mscale": 1.0}},
         UnsupportedError, "no mscale"),
        ("phi3 longrope, long", {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}},
         CheckpointError, "short_factor must be a list of 16 numbers"),
        ("llama", {"partial_rotary_factor": 0.5}, UnsupportedError, "partial_rotary_factor"),
        ("qwen3_moe", {"norm_topk_prob": None}, UnsupportedError, "norm_topk_prob is False"),  # what its class has
        ("gemma2", {"query_pre_attn_scalar": None}, UnsupportedError, "query_pre_attn_scalar is 256"),
        ("gemma2", {"sliding_window": None}, CheckpointError, "sliding_window is missing"),
        ("llama", {"is_causal": False}, UnsupportedError, "is_causal is False"),
        ("llama", {"rms_norm_eps": None}, CheckpointError, "rms_norm_eps is missing"),
        ("llama", {"num_hidden_layers": 1 << 30}, CheckpointError, "1073741824 layers"),
        ("olmoe", {"num_key_value_heads": 1}, UnsupportedError, "num_key_value_heads is 1; .* has 2, always"),
        ("stablelm 2", {"num_attention_heads": 1 << 30}, CheckpointError, "1073741824 heads"),
        ("llama", {"hidden_size": 96}, CheckpointError, "do not agree with the config"),
        ("llama", {"mlp_bias": False}, CheckpointError, "unexpected: .*mlp.*bias"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, name, changes, error, words):
    write_tiny(tmp_path / "folder", name)
    config = json.loads((tmp_path / "folder/config.json").read_text())
    (tmp_path / "folder/config.json").write_text(json.dumps(config | changes))
    refused(tmp_path, error, words)


def test_a_window_that_llama_cpp_has_not_bounds_the_context(tmp_path):
    write_tiny(tmp_path / "folder", "mistral", sliding_window=48)
    fields, _ = read_back(exported(tmp_path))
    assert fields["llama.context_length"] == 48


def test_an_unused_window_bounds_nothing(tmp_path):
    write_tiny(tmp_path / "folder", "qwen2", sliding_window=48)
    assert read_back(exported(tmp_path))[0]["qwen2.context_length"] == 128


# --- the file ---------------------------------------------------------------------------------------------------------


def test_an_existing_file_is_kept_unless_told(tmp_path):
    write_tiny(tmp_path / "folder", "llama")
    (tmp_path / "model.gguf").write_bytes(b"mine")
    with pytest.raises(CheckpointError, match=r"model\.gguf: is there already"):
        exported(tmp_path)
    assert (tmp_path / "model.gguf").read_bytes() == b"mine"
    exported(tmp_path, overwrite=True)
    assert (tmp_path / "model.gguf").read_bytes()[:4] == b"GGUF"


def test_a_failure_keeps_what_was_there(tmp_path, monkeypatch):
    write_tiny(tmp_path / "folder", "llama")
    (tmp_path / "model.gguf").write_bytes(b"mine")
    with open_checkpoint(tmp_path / "folder") as checkpoint:
        name = "model.layers.2.mlp.up_proj.weight"
        wrong = np.full(checkpoint.tensors[name].shape, np.nan, np.float32)
        tensors = dict(checkpoint.tensors) | {name: Tensor(name, "f32", wrong.shape, wrong)}
        broken = Checkpoint(checkpoint.folder, checkpoint.config, {}, tensors)
        with pytest.raises(CheckpointError, match="finite"):
            export_checkpoint(broken, tmp_path / "model.gguf", "q8", overwrite=True)
    assert (tmp_path / "model.gguf").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "model.gguf"]


@pytest.mark.parametrize("name", ["model", "model.bin"])
def test_a_file_is_called_gguf(tmp_path, name):
    write_tiny(tmp_path / "folder", "llama")
    with open_checkpoint(tmp_path / "folder") as checkpoint, pytest.raises(ArgumentError, match=r"ends in \.gguf"):
        export_checkpoint(checkpoint, tmp_path / name)


def test_progress_ends_at_all_the_bytes(tmp_path):
    write_tiny(tmp_path / "folder", "llama 3", "q4")
    calls = []
    _, tensors = read_back(exported(tmp_path, progress=lambda done, total: calls.append((done, total))))
    total = sum(int(tensor.n_bytes) for tensor in tensors.values())
    assert [done for done, _ in calls] == sorted(done for done, _ in calls) and calls[-1] == (total, total)


@pytest.mark.parametrize("name", EVERY)
def test_a_model_that_loads_is_written_and_loads_again(tmp_path, name):
    write_tiny(tmp_path / "folder", name, "f32" if name == "gpt2" else "q8")
    export_folder(tmp_path / "folder", tmp_path / "model.gguf")
    folder = convert_gguf(tmp_path / "model.gguf", tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logits = [fd.load(path, threads=1).logits([5, 6, 7]) for path in (tmp_path / "folder", folder)]
    assert np.isfinite(logits[0]).all() and np.array_equal(*logits)


# --- the tokenizer ----------------------------------------------------------------------------------------------------


def test_a_tokenizer_returns_as_it_was(tmp_path):
    import tokenizers

    write_tiny(tmp_path / "folder", "llama")
    folder = returned(tmp_path)
    there, here = (
        tokenizers.Tokenizer.from_file(str(path / "tokenizer.json")) for path in (tmp_path / "folder", folder)
    )
    text = "in the  12 thé <|user|>\n\n日本 it's <|end|>"
    assert there.encode(text).ids == here.encode(text).ids
    found = json.loads((folder / "tokenizer_config.json").read_text())
    assert found["bos_token"] == TOKENS[1] and found["chat_template"] == "{{ messages }}"
    fields, _ = read_back(tmp_path / "model.gguf")
    assert fields["tokenizer.ggml.pre"] == "smollm" and fields["tokenizer.ggml.eos_token_id"] == 0
    assert len(fields["tokenizer.ggml.tokens"]) == 300 and fields["tokenizer.ggml.tokens"][-1] == "[PAD299]"


def change_tokenizer(folder, change):
    found = json.loads((folder / "tokenizer.json").read_text())
    change(found)
    (folder / "tokenizer.json").write_text(json.dumps(found))


def sentencepiece(prefix: bool):
    """A BPE over SentencePiece's alphabet, as transformers writes Llama 2's or Gemma's."""

    def change(found):
        words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "ab", "▁ab"]
        merges = [["▁", "a"], ["a", "b"], ["▁", "ab"], ["▁a", "b"]]
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        prepend = {"type": "Prepend", "prepend": "▁"}
        found["normalizer"] = {"type": "Sequence", "normalizers": [prepend, replace]} if prefix else replace
        found["pre_tokenizer"] = None
        found["added_tokens"] = [found["added_tokens"][0] | {"id": i, "content": words[i]} for i in range(3)]
        vocab = {word: i for i, word in enumerate(words)}
        found["model"] |= {"unk_token": "<unk>", "byte_fallback": True, "vocab": vocab, "merges": merges}
        first = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        found["post_processor"] = {"type": "TemplateProcessing", "single": first, "pair": [], "special_tokens": {}}

    return change


@pytest.mark.parametrize("prefix", [False, True])
def test_sentencepiece_with_byte_fallback(tmp_path, prefix):
    write_tiny(tmp_path / "folder", "llama")
    change_tokenizer(tmp_path / "folder", sentencepiece(prefix))
    names = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "unk_token": "<unk>"}
    (tmp_path / "folder/tokenizer_config.json").write_text(json.dumps(names))
    fields, _ = read_back(exported(tmp_path))
    assert fields["tokenizer.ggml.model"] == "llama" and fields["tokenizer.ggml.add_space_prefix"] is prefix
    assert fields["tokenizer.ggml.token_type"][:5] == [2, 3, 3, 6, 6] and fields["tokenizer.ggml.token_type"][
        259:262
    ] == [1, 1, 1]
    scores = dict(zip(fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.scores"], strict=True))
    assert [scores[token] for token in ("▁a", "ab", "▁ab", "a")] == [0, -1, -2, -4]
    ids = [fields[f"tokenizer.ggml.{name}_token_id"] for name in ("unknown", "bos", "eos")]
    assert ids == [0, 1, 2] and fields["tokenizer.ggml.add_bos_token"] is True
    assert fields["tokenizer.ggml.add_eos_token"] is False


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda found: found["model"].update(type="Unigram"), UnsupportedError, "type 'Unigram'"),
        (lambda found: found.update(normalizer={"type": "Lowercase"}), UnsupportedError, "normalizer .*Lowercase"),
        (lambda found: found.update(pre_tokenizer={"type": "ByteLevel", "use_regex": False}), UnsupportedError, "pre-tokenizer"),
        (lambda found: found.update(pre_tokenizer=None), UnsupportedError, "falls back on no bytes"),
        (lambda found: found["model"].update(ignore_merges=True), UnsupportedError, "pre-tokenizer"),
        (lambda found: found.pop("model"), CheckpointError, "no tokenizer"),
        (lambda found: found["model"].update(merges=7), CheckpointError, "no tokenizer"),
        (lambda found: found["model"].update(vocab=7), CheckpointError, "no tokenizer"),
        (lambda found: found["model"]["vocab"].update({"\ud800": 280}), CheckpointError, "no tokenizer"),
        (lambda found: found["added_tokens"].append(7), CheckpointError, "no tokenizer"),
        (lambda found: found.update(post_processor=[7]), CheckpointError, "no tokenizer"),
        (lambda found: found.update(post_processor={"type": "TemplateProcessing", "single": []}), CheckpointError, "no tokenizer"),
        (lambda found: found["pre_tokenizer"]["pretokenizers"].append({"type": "Split", "pattern": 7}), CheckpointError, "no tokenizer"),
        (lambda found: found["model"]["vocab"].update(more=300), CheckpointError, "has the token 300, .*300 rows"),
        (lambda found: found.update(post_processor={"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "<|end|>"}}, {"Sequence": {"id": "A"}}]}), UnsupportedError, "not its bos_token"),
    ],
)  # fmt: skip
def test_a_tokenizer_that_llama_cpp_has_not_is_refused(tmp_path, change, error, words):
    write_tiny(tmp_path / "folder", "llama")
    change_tokenizer(tmp_path / "folder", change)
    refused(tmp_path, error, words)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    write_tiny(tmp_path / "folder", "llama")
    (tmp_path / "folder/tokenizer.json").unlink()
    refused(tmp_path, CheckpointError, r"tokenizer\.json: there is no such file")


def test_templates_by_name_and_more_ends(tmp_path):
    write_tiny(tmp_path / "folder", "llama")
    (tmp_path / "folder/chat_template.jinja").write_text("the usual")
    (tmp_path / "folder/additional_chat_templates").mkdir()
    (tmp_path / "folder/additional_chat_templates/rag.jinja").write_text("another")
    (tmp_path / "folder/generation_config.json").write_text(json.dumps({"eos_token_id": [0, 274]}))
    fields, _ = read_back(exported(tmp_path))
    assert fields["tokenizer.chat_template"] == "the usual" and fields["tokenizer.chat_template.rag"] == "another"
    assert fields["tokenizer.ggml.eot_token_id"] == 274
