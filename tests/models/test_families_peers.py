"""Every causal family beside transformers: random checkpoints of odd shapes, and every key of its config changed in turn."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdistill as fd
from fastdistill.decode import generate
from fastdistill.models import described
from fastdistill.ops.activation import ACTIVATIONS
from fastdistill.runtime.source import encoding
from tests.changed_keys import assert_never_silently_wrong
from tests.families import CAUSAL, EVERY, OF_TYPE, SOURCED

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

TRANSLATORS = {model_type for model_type, _ in SOURCED.values()}
TOLERANCE = 1e-4  # of the largest logit, both in float32


def made(folder: Path, raw: dict, seed: int = 0):
    """A random model of transformers, saved: norms, biases and matrices far from their tidy beginnings."""
    config = transformers.AutoConfig.for_model(**raw)
    torch.manual_seed(seed)
    kind, how = transformers.AutoModelForCausalLM, {"experts_implementation": "eager"}
    if raw["model_type"] in TRANSLATORS:
        kind, how = transformers.AutoModelForSeq2SeqLM, {}
    model = kind.from_config(config, dtype=torch.float32, attn_implementation="eager", **how).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # sinusoids are what they are
                parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 1 else 0.12))
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
    model.save_pretrained(folder)
    return model


def theirs(model, tokens: list[int]) -> np.ndarray:
    given = {"input_ids": torch.tensor([tokens])}
    if model.config.model_type in TRANSLATORS:
        given = {"input_ids": torch.tensor([read_before(tokens)]), "decoder_input_ids": torch.tensor([tokens])}
    with torch.no_grad():
        return model(**given).logits[0].numpy()


def read_before(tokens: list[int]) -> list[int]:
    """The source of a text: of another length."""
    return [*tokens[::-2], *tokens[:3]]


def assert_alike(model, folder: Path, tokens: list[int]) -> None:
    want = theirs(model, tokens)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # keys that no plan knows: whether they matter is what is tried here
        ours = fd.load(folder, threads=2)
        got = ours.logits(tokens, read_before(tokens) if ours.target else None)
    np.testing.assert_allclose(got, want, atol=TOLERANCE * np.abs(want).max())


# ---- shapes ----

OWN_HEAD_DIM = {"llama", "mistral", "mixtral", "qwen3", "qwen3_moe", "gemma2", "gemma3_text"}
GPT = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "max_position_embeddings": "n_positions"}  # fmt: skip


@st.composite
def shapes(draw: st.DrawFn, model_type: str) -> dict:
    """Sizes that a config of this model_type may have: few are multiples of anything."""
    kv_heads = draw(st.integers(1, 3))
    heads = kv_heads * draw(st.integers(1, 3))
    head_dim = draw(st.sampled_from([4, 6, 10, 16, 18, 32, 34]))
    if model_type in ("stablelm", "gpt_neox", "phi3"):
        head_dim = draw(st.sampled_from([8, 16, 24, 40]))  # a quarter or a half of it is rotated
    raw = dict(
        model_type=model_type,
        hidden_size=heads * head_dim,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=draw(st.integers(1, 70)),
        num_hidden_layers=draw(st.integers(1, 3)),
        vocab_size=draw(st.integers(35, 200)),
        max_position_embeddings=128,
        tie_word_embeddings=draw(st.booleans()),
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    rare = {
        key: value for key, value in EVERY[OF_TYPE[model_type]][1].items() if key not in raw and key not in GPT.values()
    }
    raw |= rare | draw(st.fixed_dictionaries({}, optional=OPTIONS.get(model_type, {})))
    if model_type in OWN_HEAD_DIM:
        raw |= dict(head_dim=head_dim, hidden_size=draw(st.integers(1, 20)) * heads)
    if model_type in ("gpt2", "gptj"):
        raw = {
            GPT.get(key, key): value
            for key, value in raw.items()
            if key not in ("num_key_value_heads", "intermediate_size")
        }
    if model_type == "gptj":
        raw |= dict(rotary_dim=2 * draw(st.integers(1, head_dim // 2)), tie_word_embeddings=False)
    if model_type in ("falcon", "gpt_neox"):
        raw.pop("num_key_value_heads")
    if model_type == "falcon":
        raw.pop("intermediate_size")
        if raw.get("new_decoder_architecture"):
            raw |= dict(num_kv_heads=kv_heads)
    return raw


@st.composite
def sourced_shapes(draw: st.DrawFn, model_type: str) -> dict:
    """Sizes that a config with an encoder may have."""
    layers, inner, heads = st.integers(1, 3), st.integers(1, 70), draw(st.integers(1, 3))
    raw: dict = dict(
        model_type=model_type,
        vocab_size=draw(st.integers(35, 200)),
        eos_token_id=1,
        pad_token_id=0,
        decoder_start_token_id=0,
    )
    if "t5" in model_type:
        return raw | dict(
            d_model=draw(inner), d_kv=draw(st.sampled_from([4, 7, 16, 33])), d_ff=draw(inner), num_heads=heads,
            num_layers=draw(layers), num_decoder_layers=draw(layers), tie_word_embeddings=draw(FLAG),
            relative_attention_num_buckets=draw(st.sampled_from([4, 6, 10, 32])),
            relative_attention_max_distance=draw(st.sampled_from([17, 40, 128])),
            feed_forward_proj=draw(st.sampled_from(["relu", "gated-gelu", "gated-silu", "gelu"])),
        )  # fmt: skip
    others = draw(st.integers(1, 3))
    return raw | dict(
        d_model=heads * others * draw(st.integers(1, 11)), max_position_embeddings=128, scale_embedding=draw(FLAG),
        encoder_attention_heads=heads, decoder_attention_heads=others, encoder_layers=draw(layers), decoder_layers=draw(layers),
        encoder_ffn_dim=draw(inner), decoder_ffn_dim=draw(inner), activation_function=draw(st.sampled_from(["gelu", "swish", "relu"])),
    )  # fmt: skip


FLAG, ROPE = st.booleans(), st.sampled_from([500.0, 1e5])
SLIDING = dict(sliding_window=st.integers(1, 20))
OPTIONS: dict[str, dict[str, st.SearchStrategy]] = {
    "llama": dict(attention_bias=FLAG, mlp_bias=FLAG, hidden_act=st.sampled_from(["silu", "gelu", "gelu_pytorch_tanh"])),
    "mistral": SLIDING,
    "mixtral": SLIDING | dict(num_local_experts=st.integers(2, 9)),
    "qwen2": SLIDING | dict(use_sliding_window=FLAG, max_window_layers=st.integers(0, 3)),
    "qwen3": SLIDING | dict(use_sliding_window=FLAG, max_window_layers=st.integers(0, 3), attention_bias=FLAG),
    "qwen2_moe": dict(norm_topk_prob=FLAG, num_experts=st.integers(2, 20), decoder_sparse_step=st.integers(1, 2)),
    "qwen3_moe": dict(norm_topk_prob=FLAG, num_experts=st.integers(2, 20), num_experts_per_tok=st.integers(1, 2)),
    "gemma2": SLIDING | dict(attn_logit_softcapping=st.sampled_from([None, 3.0]), final_logit_softcapping=st.sampled_from([None, 2.0])),
    "gemma3_text": SLIDING | dict(sliding_window_pattern=st.integers(1, 3), query_pre_attn_scalar=st.integers(1, 300)),
    "phi3": SLIDING,
    "smollm3": dict(no_rope_layer_interval=st.integers(1, 4), attention_bias=FLAG, mlp_bias=FLAG),
    "olmo2": dict(attention_bias=FLAG),
    "olmoe": dict(norm_topk_prob=FLAG, attention_bias=FLAG, num_experts=st.integers(2, 20)),
    "granite": dict(attention_bias=FLAG, mlp_bias=FLAG, logits_scaling=st.floats(0.5, 8), embedding_multiplier=st.floats(0.5, 8)),
    "stablelm": dict(use_qkv_bias=FLAG, qk_layernorm=FLAG, use_parallel_residual=FLAG),
    "starcoder2": SLIDING | dict(use_bias=FLAG, hidden_act=st.sampled_from(["gelu_pytorch_tanh", "gelu", "silu"])),
    "gpt2": dict(n_inner=st.integers(1, 70), scale_attn_weights=FLAG),
    "gpt_neox": dict(attention_bias=FLAG, use_parallel_residual=FLAG, hidden_act=st.sampled_from(["gelu", "gelu_new"])),
    "gptj": dict(n_inner=st.integers(1, 70)),
    "falcon": dict(new_decoder_architecture=FLAG, multi_query=FLAG, parallel_attn=st.just(True), bias=FLAG),
}  # fmt: skip


@pytest.mark.parametrize("model_type", [*OPTIONS, *sorted(TRANSLATORS)])
def test_random_checkpoints_of_odd_shapes_are_alike(tmp_path_factory, model_type):
    drawn = sourced_shapes if model_type in TRANSLATORS else shapes

    @settings(max_examples=15)
    @given(raw=drawn(model_type), length=st.sampled_from([1, 2, 17, 70]), seed=st.integers(0, 9))
    def check(raw, length, seed):
        folder = tmp_path_factory.mktemp("model")
        model = made(folder, raw, seed)
        tokens = np.random.default_rng(seed).integers(0, raw["vocab_size"], length).tolist()
        assert_alike(model, folder, tokens)
        as_older_files_say_it(folder)
        assert_alike(model, folder, tokens)

    check()


def as_older_files_say_it(folder: Path) -> None:
    """The same config, in the words of files from before `rope_parameters`, `layer_types` and `dtype`."""
    raw = json.loads((folder / "config.json").read_text("utf-8"))
    rope = raw.pop("rope_parameters", None) or {}
    if "full_attention" in rope:
        raw |= {"rope_theta": rope["full_attention"]["rope_theta"]}
        raw |= {"rope_local_base_freq": rope["sliding_attention"]["rope_theta"]}
        raw |= {"sliding_window_pattern": raw.get("_sliding_window_pattern", 6)}
    elif rope:
        partial = rope.get("partial_rotary_factor")
        if raw["model_type"] == "gpt_neox":
            raw |= {"rotary_emb_base": rope["rope_theta"], "rotary_pct": partial}
        else:
            raw |= {"rope_theta": rope["rope_theta"]} | ({} if partial is None else {"partial_rotary_factor": partial})
        rest = {
            key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor", "rope_type")
        }
        raw["rope_scaling"] = {"type": rope["rope_type"]} | rest if rope["rope_type"] != "default" else None
    raw.pop("layer_types", None)
    raw["torch_dtype"] = raw.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")


@pytest.mark.parametrize("name", CAUSAL)
def test_greedy_texts_are_alike(tmp_path, name):
    model_type, raw = EVERY[name]
    model = made(tmp_path / "model", {"model_type": model_type} | raw)
    ours = fd.load(tmp_path / "model", threads=2)
    written = tokens = [3, 1, 4, 1, 5, 9, 2, 6]
    new = 16 if "long" in name else 32  # beyond its original context other frequencies are in force
    for _ in range(new):
        written = [*written, int(theirs(model, written)[-1].argmax())]
    got = generate(ours.session(len(written)), tokens, new)
    assert got.tokens == written[len(tokens) :]


@pytest.mark.parametrize("name", SOURCED)
def test_texts_of_a_source_are_those_that_generate_writes(tmp_path, name):
    """With all that its files say of how a text begins and ends: of both files, and of config.json alone."""
    model_type, raw = EVERY[name]
    folder = tmp_path / "model"
    made(folder, {"model_type": model_type} | raw)
    for files in ("config.json", "both"):
        (folder / "generation_config.json").unlink(missing_ok=True)
        (folder / "config.json").write_text(json.dumps({"model_type": model_type} | raw), encoding="utf-8")
        if files == "both":
            said = dict(
                decoder_start_token_id=7,
                eos_token_id=raw["eos_token_id"],
                pad_token_id=1,
                forced_bos_token_id=5,
                forced_eos_token_id=9,
                bad_words_ids=[[40], [14]],
            )
            (folder / "generation_config.json").write_text(json.dumps(said), encoding="utf-8")
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        ours, ended = fd.load(folder, threads=2), set()
        for seed in range(12):
            source = np.random.default_rng(seed).integers(3, 83, 4 + 3 * seed).tolist()
            how = dict(max_new_tokens=32 if seed % 4 else 3, num_beams=1, do_sample=False, use_cache=False)
            with torch.no_grad():
                want = model.generate(torch.tensor([source]), **how)[0].tolist()
            got = ours.generate(source, max_tokens=how["max_new_tokens"])
            assert [ours.target.start, *got.tokens] == want
            ended.add(got.finish_reason)
        assert "length" in ended


@pytest.mark.parametrize(("penalty", "early"), [(1.0, False), (2.0, True), (0.0, "never"), (-0.5, False)])
@pytest.mark.parametrize("name", SOURCED)
def test_beams_over_a_source_are_those_of_generate(tmp_path, name, penalty, early):
    model_type, raw = EVERY[name]
    folder = tmp_path / "model"
    made(folder, {"model_type": model_type} | raw)
    said = {} if penalty == 1.0 else dict(forced_bos_token_id=5, forced_eos_token_id=9, bad_words_ids=[[40], [14]])
    said |= dict(
        decoder_start_token_id=raw["decoder_start_token_id"], eos_token_id=[raw["eos_token_id"], 9, 11], pad_token_id=81
    )
    (folder / "generation_config.json").write_text(json.dumps(said), encoding="utf-8")
    load = transformers.AutoModelForSeq2SeqLM.from_pretrained
    model, ours = load(folder, dtype=torch.float32, attn_implementation="eager").eval(), fd.load(folder, threads=2)
    for seed in range(4):
        source = np.random.default_rng(seed).integers(3, 81, 5 + 9 * seed).tolist()
        how = dict(num_beams=4, num_return_sequences=4, length_penalty=penalty, early_stopping=early)
        with torch.no_grad():
            want = model.generate(
                torch.tensor([source]), max_new_tokens=12, do_sample=False, use_cache=False,
                output_scores=True, return_dict_in_generate=True, **how,
            )  # fmt: skip
        got = ours.generate(source, n=4, max_tokens=12, decoder=fd.BeamSearch(4, penalty, early))
        tokens = [each[1:].tolist() for each in want.sequences]
        assert [each.tokens + [81] * (len(tokens[0]) - len(each.tokens)) for each in got] == tokens
        np.testing.assert_allclose([each.score for each in got], want.sequences_scores.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("where", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("name", ["bart", "marian", "t5"])
def test_a_folder_that_asks_for_beams_has_both_search(tmp_path, name, where):
    """Nothing but the source is given: what the files say makes the same text of it, here and there."""
    model_type, raw = EVERY[name]
    folder, config = tmp_path / "model", {"model_type": model_type} | raw
    made(folder, config)
    (folder / "generation_config.json").unlink(missing_ok=True)
    ends = dict(decoder_start_token_id=raw["decoder_start_token_id"], eos_token_id=[raw["eos_token_id"], 9, 11])
    ends |= dict(forced_eos_token_id=9, bad_words_ids=[[40], [14]])
    for seed, (penalty, early) in enumerate([(2.0, True), (0.0, False), (1.0, "never")]):
        asked = dict(num_beams=4, length_penalty=penalty, early_stopping=early, no_repeat_ngram_size=1 + seed) | ends
        files = {"config.json": config, where: asked if where != "config.json" else config | asked}
        for file, said in files.items():
            (folder / file).write_text(json.dumps(said), encoding="utf-8")
        load = transformers.AutoModelForSeq2SeqLM.from_pretrained
        model, ours = load(folder, dtype=torch.float32, attn_implementation="eager").eval(), fd.load(folder, threads=2)
        assert ours.search == fd.BeamSearch(4, penalty, early)
        source = np.random.default_rng(seed).integers(3, 81, 9).tolist()
        for beams in (4, 1):  # of one beam too no run comes twice
            how = dict(use_cache=False, pad_token_id=81, max_new_tokens=12, num_beams=beams)
            with torch.no_grad():
                want = model.generate(torch.tensor([source]), **how)[0].tolist()
            got = ours.generate(source, max_tokens=12, decoder=None if beams > 1 else fd.Autoregressive())
            assert [ours.target.start, *got.tokens] == want and len(got.runners_up) == beams - 1


@pytest.mark.parametrize("name", SOURCED)
def test_hidden_states_of_encoder_and_decoder_are_theirs(tmp_path, name):
    model_type, raw = EVERY[name]
    model, words = made(tmp_path / "model", {"model_type": model_type} | raw), [3, 1, 4, 1, 5, 9, 2, 6]
    ours, source = fd.load(tmp_path / "model", threads=2), np.arange(3, 40, dtype=np.int32)
    given = {"input_ids": torch.tensor([source.tolist()]), "decoder_input_ids": torch.tensor([words])}
    with torch.no_grad():
        want = model(**given, output_hidden_states=True)
    request, _ = encoding(ours.plan, [source], "f32")
    request.want_outputs = True
    seat = ours.network.pool(len(source), ()).take()
    session = ours.session(16)
    session.read_source(source)
    decoded = session.forward(words, read=fd.Read(hidden=True)).hidden
    for got, theirs in (
        (seat.executor.run(request).outputs["encoded"], want.encoder_last_hidden_state),
        (decoded, want.decoder_hidden_states[-1]),
    ):
        np.testing.assert_allclose(got, theirs[0].numpy(), atol=TOLERANCE * np.abs(got).max())


def test_activations_are_theirs_by_every_name():
    x = np.linspace(-8, 8, 999, dtype=np.float32)
    for name, ours in described._ACTIVATIONS.items():
        want = transformers.activations.ACT2FN[name](torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(ACTIVATIONS[ours](x), want, atol=2e-6, err_msg=name)


# ---- keys ----


CHANGES: dict[str, list[object]] = {
    "hidden_act": ["gelu", "gelu_pytorch_tanh", "relu"],
    "hidden_activation": ["gelu", "silu", "relu"],
    "activation_function": ["gelu", "silu", "relu"],
    "activation": ["gelu_new", "silu", "relu"],
    "sliding_window": [3, None],
    "layer_types": [["full_attention"] * 2, ["sliding_attention", "full_attention"], ["sliding_attention"] * 3],
    "final_logit_softcapping": [2.0, None],
    "attn_logit_softcapping": [2.0, None],
    "no_rope_layers": [[0, 1, 0], [1, 1, 1]],
    "mlp_only_layers": [[], [0]],
    "num_key_value_heads": [1, 4],
    "num_kv_heads": [1, 4],
    "head_dim": [6, 22],
    "n_inner": [24],
    "rotary_dim": [2, 10],
    "rope_parameters": [
        dict(rope_type="default", rope_theta=300.0),
        dict(rope_type="linear", rope_theta=10000.0, factor=3.0),
        dict(rope_type="dynamic", rope_theta=10000.0, factor=3.0),
        dict(rope_type="yarn", rope_theta=10000.0, factor=3.0, original_max_position_embeddings=20),
        dict(rope_type="yarn", rope_theta=500.0, factor=3.0, original_max_position_embeddings=20, mscale=0.7, mscale_all_dim=0.4, truncate=False),
        dict(rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=40),
        dict(rope_type="default", rope_theta=300.0, partial_rotary_factor=0.5),
    ],
}  # fmt: skip
NEVER = {
    "model_type",
    "architectures",
    "dtype",
    "transformers_version",
    "id2label",
    "label2id",
    "problem_type",
    "pad_token_id",
}


@pytest.mark.parametrize("name", [*CAUSAL, *SOURCED])
def test_a_changed_key_changes_what_theirs_computes_and_ours_alike_or_is_refused(tmp_path_factory, name):
    """Never a silently wrong model: whatever the key, ours loads what theirs has saved and agrees, or says what it lacks."""
    model_type, raw = EVERY[name]
    whole = transformers.AutoConfig.for_model(**{"model_type": model_type} | raw).to_dict()
    tokens = np.random.default_rng(1).integers(0, 60, 30).tolist()

    def make(folder, change):
        model = made(folder, {"model_type": model_type} | raw | change)
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
