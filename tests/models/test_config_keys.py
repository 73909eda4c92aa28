"""Keys of config.json: absent ones mean what the class says, harmless ones pass in silence, others are refused or named."""

from __future__ import annotations

import functools
import inspect
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.checkpoint import Config
from fastdistill.errors import CheckpointError, UnsupportedError
from fastdistill.models import plan_for
from fastdistill.models.config_keys import HARMLESS, NEUTRAL, completed
from fastdistill.models.families import DEFAULTS
from tests import encoders
from tests.encoders import encoder_config
from tests.families import EVERY, OF_TYPE, family_config
from tests.small_models import config, dream_config, llada_config

SMALL = {model_type: functools.partial(family_config, name) for model_type, name in OF_TYPE.items()}
SMALL |= {model_type: functools.partial(encoder_config, name) for model_type, name in encoders.OF_TYPE.items()}
model_types = st.sampled_from(list(SMALL))

# What public models' files say beside sizes: of each, the keys that the classes' tables do not know, as they stand there.
LLAMA = dict(
    architectures=["LlamaForCausalLM"], bos_token_id=1, eos_token_id=2, initializer_range=0.02, pretraining_tp=1,
    torch_dtype="bfloat16", transformers_version="4.40.1", use_cache=True, rope_scaling=None, hidden_act="silu",
)  # fmt: skip
LLADA = dict(
    alibi_bias_max=8.0, architectures=["LLaDAModelLM"], attention_dropout=0.0, attention_layer_norm_with_affine=True,
    auto_map={"AutoModel": "modeling_llada.LLaDAModelLM"}, block_group_size=1, embedding_dropout=0.0, eos_token_id=126081,
    flash_attention=False, init_cutoff_factor=None, init_device="meta", init_fn="mitchell", init_std=0.02,
    multi_query_attention=None, pad_token_id=126081, precision="amp_bf16", residual_dropout=0.0, rope_full_precision=True,
    transformers_version="4.46.3", use_cache=False,
)  # fmt: skip
QWEN = LLAMA | dict(attention_dropout=0.0, use_sliding_window=False, rope_theta=1e6, max_window_layers=28)
ROUTED = dict(output_router_logits=False, router_aux_loss_coef=0.001)
GEMMA = dict(
    attention_bias=False, attention_dropout=0.0, cache_implementation="hybrid", hidden_activation="gelu_pytorch_tanh", pad_token_id=0,
    query_pre_attn_scalar=256, bos_token_id=2, eos_token_id=[1, 106], torch_dtype="bfloat16", use_cache=True,
)  # fmt: skip
PHI = LLAMA | dict(
    auto_map={"AutoConfig": "x"},
    attention_bias=False,
    attention_dropout=0.0,
    embd_pdrop=0.0,
    resid_pdrop=0.0,
    original_max_position_embeddings=24,
)
GPT = dict(
    activation_function="gelu_new", attn_pdrop=0.1, embd_pdrop=0.1, resid_pdrop=0.1, summary_activation=None, summary_first_dropout=0.1,
    summary_proj_to_labels=True, summary_type="cls_index", summary_use_proj=True, task_specific_params={"text-generation": {"do_sample": True}},
)  # fmt: skip
FALCON = dict(
    alibi=False, apply_residual_connection_post_layernorm=False, attention_dropout=0.0, hidden_dropout=0.0, bias=False, parallel_attn=True,
    auto_map={"AutoConfig": "x"}, use_cache=True,
)  # fmt: skip
BART = dict(
    _num_labels=3, activation_dropout=0.1, add_bias_logits=False, add_final_layer_norm=False, attention_dropout=0.1, classif_dropout=0.1,
    classifier_dropout=0.0, decoder_layerdrop=0.0, encoder_layerdrop=0.0, dropout=0.1, early_stopping=True, forced_eos_token_id=2,
    gradient_checkpointing=False, id2label={"0": "LABEL_0"}, init_std=0.02, is_encoder_decoder=True, max_length=142, min_length=56,
    no_repeat_ngram_size=3, normalize_before=False, num_beams=4, num_hidden_layers=2, task_specific_params={}, use_cache=True,
)  # fmt: skip
PUBLISHED = {
    "BART base": ("bart", BART | dict(forced_bos_token_id=0, normalize_embedding=True, torch_dtype="float32", scale_embedding=False)),
    "BART large, CNN": ("bart", BART | dict(force_bos_token_to_be_generated=True, output_past=True, prefix=" ", static_position_embeddings=False,
                                            extra_pos_embeddings=2, length_penalty=2.0)),
    "T5 small": ("t5", dict(architectures=["T5ForConditionalGeneration"], dropout_rate=0.1, initializer_factor=1.0, is_encoder_decoder=True,
                            n_positions=512, output_past=True, task_specific_params={}, use_cache=True)),
    "FLAN-T5": ("t5", dict(classifier_dropout=0.0, dense_act_fn="relu", is_gated_act=False, n_positions=512, output_past=True, use_cache=True,
                           relative_attention_max_distance=20, transformers_version="4.23.1")),
    "mT5": ("mt5", dict(tokenizer_class="T5Tokenizer", output_past=True, is_encoder_decoder=True, dropout_rate=0.1, feed_forward_proj="gated-gelu")),
    "UMT5": ("umt5", dict(dense_act_fn="gelu_new", is_gated_act=True, scalable_attention=True, tokenizer_class="T5Tokenizer", use_cache=True)),
    "OPUS-MT": ("marian", BART | dict(bad_words_ids=[[82]], decoder_vocab_size=83, extra_pos_embeddings=83, normalize_embedding=False,
                                      share_encoder_decoder_embeddings=True, static_position_embeddings=True)),
    "Llama 2": ("llama", LLAMA | dict(max_length=4096, pad_token_id=0, temperature=0.9, top_p=0.6, _name_or_path="x")),
    "Llama 3.2": ("llama", LLAMA | dict(eos_token_id=[1, 2], attention_dropout=0.0, _commit_hash="4e20de36")),
    "SmolLM2": ("llama", LLAMA | dict(is_llama_config=True, rope_interleaved=False, pad_token_id=2, attention_dropout=0.0,
                                      **{"transformers.js_config": {"dtype": "q4f16"}})),
    "TinyLlama": ("llama", LLAMA | dict(_name_or_path="TinyLlama", attention_bias=False)),
    "Vicuna": ("llama", LLAMA | dict(max_sequence_length=2048, pad_token_id=0)),
    "fine-tuned": ("llama", LLAMA | dict(unsloth_version="2024.9", unsloth_fixed=True, _attn_implementation_autoset=True)),
    "newer": ("llama", dict(architectures=["LlamaForCausalLM"], dtype="bfloat16", use_cache=False, transformers_version="5.0.0")),
    "Mistral 0.1": ("mistral", LLAMA | dict(sliding_window=4096, architectures=["MistralForCausalLM"])),
    "Mistral 0.3": ("mistral", LLAMA | dict(sliding_window=None, attention_dropout=0.0, head_dim=16)),
    "OLMoE": ("olmoe", dict(clip_qkv=None, norm_topk_prob=False, output_router_logits=False, router_aux_loss_coef=0.01)),
    "StarCoder2": ("starcoder2", dict(norm_type="layer_norm", mlp_type="default", scale_attn_weights=True, attention_dropout=0.1,
                                      attention_softmax_in_fp32=True, scale_attention_softmax_in_fp32=True, residual_dropout=0.1, embedding_dropout=0.1)),
    "Dream": ("Dream", dict(auto_map={"AutoModel": "modeling_dream.DreamModel"}, architectures=["DreamModel"], use_mrope=False,
                            attention_dropout=0.0, max_window_layers=28, sliding_window=None,
                            use_sliding_window=False, initializer_range=0.02, pad_token_id=2, bos_token_id=1, use_cache=False)),
    "DiffuCoder": ("Dream", dict(attention_bias=False, mlp_bias=False, sliding_window=131072, layer_types=["full_attention"] * 2)),
    "LLaDA": ("llada", LLADA | dict(mlp_ratio=4)),
    "LLaDA 1.5": ("llada", LLADA | dict(eos_token_id=126348, torch_dtype="bfloat16")),
    "Qwen 2.5": ("qwen2", QWEN | dict(max_window_layers=24, use_mrope=False, sliding_window=32768)),
    "Qwen 3": ("qwen3", QWEN | dict(attention_bias=False, rope_scaling=None, sliding_window=None)),
    "Qwen 1.5 MoE": ("qwen2_moe", QWEN | ROUTED | dict(decoder_sparse_step=1, norm_topk_prob=False, sliding_window=32768)),
    "Qwen 3 MoE": ("qwen3_moe", QWEN | ROUTED | dict(decoder_sparse_step=1, mlp_only_layers=[1], norm_topk_prob=True, max_window_layers=48)),
    "Mixtral": ("mixtral", LLAMA | ROUTED | dict(rope_theta=1e6, sliding_window=None, attention_dropout=0.0)),
    "Gemma 2": ("gemma2", GEMMA | dict(attn_logit_softcapping=50.0, final_logit_softcapping=30.0, hidden_act="gelu_pytorch_tanh", rope_theta=10000.0)),
    "Gemma 3 270M": ("gemma3_text", GEMMA | dict(_sliding_window_pattern=6, attn_logit_softcapping=None, final_logit_softcapping=None,
                                                 layer_types=["sliding_attention", "sliding_attention", "full_attention"], use_bidirectional_attention=False,
                                                 rope_local_base_freq=10000.0, rope_scaling=None, rope_theta=1e6)),
    "Gemma 3 1B": ("gemma3_text", GEMMA | dict(sliding_window_pattern=6, rope_local_base_freq=10000, rope_theta=1000000)),
    "Gemma 3 4B's text": ("gemma3_text", dict(rope_scaling={"factor": 8.0, "rope_type": "linear"}, sliding_window=1024)),
    "Phi-3 4k": ("phi3", PHI | dict(sliding_window=2047, rope_scaling=None)),
    "Phi-3 128k": ("phi3", PHI | dict(sliding_window=262144, rope_scaling=dict(type="longrope", short_factor=[1.0] * 3, long_factor=[2.0] * 3))),
    "Phi-3 128k, first": ("phi3", PHI | dict(sliding_window=262144, rope_scaling=dict(type="su", short_factor=[1.0] * 3, long_factor=[2.0] * 3))),
    "Phi-4 mini": ("phi3", PHI | dict(full_attn_mod=1, interpolate_factor=1, lm_head_bias=False, mlp_bias=False, sliding_window=262144, partial_rotary_factor=0.5)),
    "SmolLM3": ("smollm3", LLAMA | dict(attention_bias=False, attention_dropout=0.0, layer_types=["full_attention"] * 3, max_window_layers=28,
                                        mlp_bias=False, no_rope_layers=[1, 1, 0], pretraining_tp=2, rope_theta=5e6, use_sliding_window=False)),
    "OLMo 2": ("olmo2", LLAMA | dict(attention_bias=False, attention_dropout=0.0, rope_theta=500000)),
    "Granite 3": ("granite", LLAMA | dict(attention_bias=False, attention_dropout=0.1, mlp_bias=False, attention_multiplier=0.015625,
                                          embedding_multiplier=12.0, residual_multiplier=0.22, logits_scaling=8.0)),
    "StableLM 2": ("stablelm", LLAMA | dict(partial_rotary_factor=0.25, rope_theta=10000, hidden_dropout=0.0, qk_layernorm=False, use_parallel_residual=False)),
    "StableLM 3B": ("stablelm", LLAMA | dict(partial_rotary_factor=0.25, rope_theta=10000, rotary_scaling_factor=1.0)),
    "GPT-2": ("gpt2", GPT | dict(n_ctx=1024)),
    "DistilGPT-2": ("gpt2", GPT | dict(n_ctx=1024, _num_labels=1, id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})),
    "GPT-2 medium": ("gpt2", GPT | dict(n_ctx=1024, n_special=0, predict_special_tokens=True, scale_attn_weights=True,
                                        scale_attn_by_inverse_layer_idx=False, reorder_and_upcast_attn=False)),
    "Pythia": ("gpt_neox", LLAMA | dict(hidden_act="gelu", rotary_emb_base=10000, rotary_pct=0.25, use_parallel_residual=True, classifier_dropout=0.1)),
    "GPT-NeoX 20B": ("gpt_neox", dict(hidden_act="gelu_fast", attention_probs_dropout_prob=0, hidden_dropout_prob=0, rotary_emb_base=10000)),
    "GPT-J": ("gptj", GPT | dict(gradient_checkpointing=False, rotary=True, scale_attn_weights=True, tie_word_embeddings=False, tokenizer_class="GPT2Tokenizer")),
    "Falcon 7B": ("falcon", FALCON | dict(multi_query=True, new_decoder_architecture=False)),
    "Falcon 11B": ("falcon", FALCON | dict(ff_factor=4, rope_theta=500042.0, rope_scaling=None, max_position_embeddings=8192)),
    "LLaDA-MoE": ("lladamoe", dict(architectures=["LLaDAMoEModelLM"], model_type="llada", attention_bias=False, attention_dropout=0.0, clip_qkv=None,
                                   moe_router_enable_expert_bias=False, moe_router_score_function="softmax", norm_topk_prob=None,
                                   output_router_logits=False, router_aux_loss_coef=0.01, partial_rotary_factor=1, rope_scaling=None,
                                   routed_scaling_factor=1, router_num_group=None, router_topk_group=None, use_cache=False,
                                   shared_expert_intermediate_size=None, eos_token_id=82, pad_token_id=82, initializer_range=0.02)),
    "LLaDA-MoE, its class": ("lladamoe", dict(architectures=["LLaDAMoEModel"], model_type="llada", router_num_group=-2, router_topk_group=-2,
                                              shared_expert_intermediate_size=0, routed_scaling_factor=1.0)),
    "SDAR": ("sdar", dict(architectures=["SDARForCausalLM"], auto_map={"AutoModel": "modeling_sdar.SDARModel"}, attention_bias=False, block_size=4,
                          fuse_cross_entropy=True, debug=False, ep_size=1, micro_forward=False, skip_checkpoint=False, use_deepep=False,
                          attn_implementation="sdpa", max_window_layers=28, sliding_window=None, use_sliding_window=False, use_cache=True)),
    "SDAR-MoE": ("sdar_moe", dict(architectures=["SDARMoeForCausalLM"], block_size=4, fuse_cross_entropy=True, debug=True, ep_size=8,
                                  micro_forward=False, skip_checkpoint=False, use_deepep=True, decoder_sparse_step=1, mlp_only_layers=[],
                                  output_router_logits=False, router_aux_loss_coef=0.001, max_window_layers=48)),
}  # fmt: skip

# Of other families, each at a value that they are published with.
COMPUTING = dict(
    attn_logit_softcapping=50.0, final_logit_softcapping=30.0, logit_scale=0.0625, logits_scaling=8.0,
    attention_multiplier=0.015625, embedding_multiplier=12.0, residual_multiplier=0.22, query_pre_attn_scalar=256,
    scale_emb=12, scale_depth=1.4, dim_model_base=256, rotary_pct=0.25, rotary_dim=64, clip_qkv=8, alibi=True,
    use_qk_norm=True, qk_layernorm=True, qk_norm=True, num_experts=64, num_local_experts=8, n_routed_experts=64,
    num_experts_per_tok=2, moe_intermediate_size=1408, use_parallel_residual=True, parallel_attn=True, kv_lora_rank=512,
    attention_chunk_size=8192, sliding_window_pattern=6, layer_types=["full_attention", "sliding_attention"],
    rope_interleaved=True, position_embedding_type="alibi", no_rope_layer_bias=True, attention_sinks=4,
    use_mrope={"sections": 3}, use_bidirectional_attention=True, per_layer_config={"0": {"head_dim": 8}}, hidden_activation="gelu_pytorch_tanh", quantization={"bits": 4, "group_size": 64},
)  # fmt: skip


def test_every_model_type_has_a_small_config():
    assert DEFAULTS.keys() == SMALL.keys()


@pytest.mark.parametrize("model_type", DEFAULTS)
def test_an_absent_key_has_the_default_of_its_class(model_type):
    """Of Llama the published 7B, of LLaDA nothing that a plan is made of."""
    read = completed(Config({"model_type": model_type}), model_type, DEFAULTS[model_type])
    for key, value in DEFAULTS[model_type].items():
        assert read._values[key] == value
    if model_type == "llada":
        with pytest.raises(UnsupportedError, match="block_type 'sequential'"):
            plan_for(Config({"model_type": model_type}))
        return
    if model_type == "lladamoe":
        with pytest.raises(CheckpointError, match="num_experts is missing"):
            plan_for(Config({"model_type": model_type}))
        return
    layers = {"encoder_layers", "decoder_layers", "num_layers"} & DEFAULTS[model_type].keys()
    layers = layers or {
        next(key for key in ("num_hidden_layers", "n_layer", "n_layers") if key in DEFAULTS[model_type])
    }
    plan = plan_for(Config({"model_type": model_type, **dict.fromkeys(layers, 1)}))
    sizes = DEFAULTS[model_type]
    assert plan.hidden_size == next(sizes[key] for key in ("hidden_size", "n_embd", "dim", "d_model") if key in sizes)
    if "num_layers" not in sizes:  # T5's positions have no end
        padding = (
            sizes.get("pad_token_id", 1 if model_type == "mpnet" else -1) + 1
        )  # positions that are none of a token's
        assert plan.max_positions == sizes.get("max_position_embeddings", sizes.get("n_positions")) - padding
    wanted = {"llama": (32, 2048, 11008), "mistral": (8, 131072, 14336), "Dream": (32, 32768, 22016)}.get(model_type)
    if wanted is not None:
        assert (
            plan.num_kv_heads,
            plan.max_positions,
            plan.weights["model.layers.0.mlp.up_proj.weight"].shape[0],
        ) == wanted


@pytest.mark.parametrize("model_type", DEFAULTS)
def test_every_key_of_a_table_is_read(model_type):
    for key in DEFAULTS[model_type]:
        with pytest.raises((CheckpointError, UnsupportedError), match=key):
            plan_for(Config(SMALL[model_type]().raw | {key: {"no": "such value"}}))


def computation(made: Config) -> object:
    """All that tells what one config computes from what another does; None for one that cannot be."""
    try:
        plan = plan_for(made)
    except UnsupportedError as error:
        return str(error)
    except CheckpointError:
        return None
    ops = [
        (op.kind, op.inputs, op.weights, {name: np.asarray(value).tolist() for name, value in op.constants.items()})
        for op in plan.ops
    ]
    weights = [(name, weight.shape, weight.source.stored) for name, weight in plan.weights.items()]
    rest = plan.start_token, plan.pooling, plan.labels, plan.problem, plan.optional
    return ops, weights, plan.max_positions, plan.mask_token, plan.causal, plan.block, rest


# Of a type, or of null: what else a key may say.
OTHERS = {
    bool: [True, False],
    int: [0, 1, 2, 4, 96, 960],
    float: [0.5, 3.0],
    str: ["silu", "gelu", "relu"],
    type(None): [1, 2, 3, 96, True, False, 2.5, "relu"],
}
LISTS = {
    "layer_types": [["sliding_attention"] * n for n in (2, 3, 4)],
    "no_rope_layers": [[0] * 3],
    "mlp_only_layers": [[0]],
    "moe_layer_freq": [[1, 0], [0, 0]],
    "architectures": [[made] for _, made, _ in encoders.CASES.values()],
    "id2label": [{"0": "yes"}],
    "problem_type": ["regression"],
    "classifier_pooling": ["cls", "mean"],
}
# Beside what they mean something.
BESIDE = [
    {},
    dict(use_sliding_window=True, sliding_window=4),
    dict(use_sliding_window=True, sliding_window=4, max_window_layers=1),
    dict(mlp_only_layers=[1], mlp_hidden_size=None),
    dict(num_experts=None),
    dict(num_local_experts=None),
    dict(moe_layer_freq=[1]),
    dict(id2label=None),
]


@pytest.mark.parametrize("model_type", DEFAULTS)
def test_every_key_of_a_table_changes_what_is_computed(model_type):
    table, unused = DEFAULTS[model_type], set()
    cases = [family_config(name) for name, (its, _) in EVERY.items() if its == model_type]
    cases += [encoder_config(name) for name, (its, *_) in encoders.CASES.items() if its == model_type]
    every = [case.changed({key: beside[key] for key in beside.keys() & table}) for case in cases for beside in BESIDE]
    for key, usual in table.items():
        made = ((one, one.changed({key: other})) for one in every for other in LISTS.get(key, OTHERS[type(usual)]))
        if not any(computation(other) not in (None, computation(one)) for one, other in made):
            unused.add(key)
    assert not unused


@pytest.mark.peers
@pytest.mark.parametrize("name", ["Llama", "Mistral"])
def test_the_tables_are_those_of_transformers(name):
    theirs = getattr(pytest.importorskip("transformers"), f"{name}Config")
    ours = DEFAULTS[name.lower()]
    fields = {key: theirs.__dataclass_fields__[key] for key in inspect.get_annotations(theirs)}
    assert ours.keys() - fields.keys() == {"is_causal"}
    assert {key: fields[key].default for key in ours.keys() & fields.keys()} == {key: ours[key] for key in ours.keys() & fields.keys()}  # fmt: skip
    unread = fields.keys() - ours.keys() - HARMLESS - {"rope_parameters", "attention_dropout"}
    assert not unread, "the class has more that bears on the computation, or that is to be called harmless"
    config = theirs(hidden_size=64, num_attention_heads=4, num_key_value_heads=4, num_hidden_layers=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for written in (config.to_dict(), config.to_diff_dict()):  # nothing that they write is unknown here
            assert plan_for(Config(written | {"model_type": name.lower()})).ops
    theta, kind = config.rope_parameters["rope_theta"], config.rope_parameters["rope_type"]
    assert (theta, kind) == (10000.0, "default")


@pytest.mark.peers
@pytest.mark.parametrize("name", ["Bart", "Marian", "T5", "MT5", "UMT5"])
def test_the_tables_of_models_with_an_encoder_are_those_of_transformers(name):
    theirs = getattr(pytest.importorskip("transformers"), f"{name}Config")
    ours = DEFAULTS[name.lower()]
    fields = {key: theirs.__dataclass_fields__[key].default for key in inspect.get_annotations(theirs)}
    shared = ours.keys() & fields.keys()
    assert {key: fields[key] for key in shared} == {key: ours[key] for key in shared}
    unread = fields.keys() - ours.keys() - HARMLESS
    assert all("drop" in key for key in unread), (
        "the class has more that bears on the computation, or that is to be called harmless"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for written in (theirs().to_dict(), theirs().to_diff_dict()):  # nothing that they write is unknown here
            assert plan_for(Config(written | {"model_type": name.lower()})).ops


def test_a_window_that_a_mistral_config_does_not_mention_is_there():
    """4,300 tokens would see all of each other here, and 4,096 in transformers."""

    def windows(**changes) -> set[int]:
        return {op.constants.get("window", 0) for op in plan_for(Config(raw | changes)).ops if op.kind == "attention"}

    raw = {key: value for key, value in SMALL["mistral"]().raw.items() if key != "sliding_window"}
    assert windows() == {4096} and windows(sliding_window=8192) == {8192} and windows(sliding_window=None) == {0}
    with pytest.raises(UnsupportedError, match="sliding_window"):  # not a key of Llama's
        plan_for(config(sliding_window=4096))


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_public_models_say_passes_in_silence(name):
    model_type, extra = PUBLISHED[name]
    plain = SMALL[model_type]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = plan_for(Config(plain.raw | extra))
    assert plan.ops and plan.weights.keys() == plan_for(plain).weights.keys()


@pytest.mark.parametrize(
    ("model_type", "said", "key"),
    [
        ("falcon", FALCON | dict(alibi=True, bias=True, multi_query=False, parallel_attn=False), "alibi True"),  # Falcon RW 1B
        ("gptj", GPT | dict(rotary=False), "rotary False"),
        ("gemma3_text", GEMMA | dict(use_bidirectional_attention=True), "use_bidirectional_attention True"),  # EmbeddingGemma
    ],
)  # fmt: skip
def test_what_public_models_say_and_no_plan_computes_is_refused_by_its_key(model_type, said, key):
    with pytest.raises(UnsupportedError, match=key):
        plan_for(SMALL[model_type](**said))


@pytest.mark.parametrize("key", COMPUTING)
@pytest.mark.parametrize("model_type", SMALL)
def test_keys_that_other_families_compute_with_are_refused_by_name_and_value(model_type, key):
    if key in DEFAULTS[model_type]:
        pytest.skip("its own")
    with pytest.raises(UnsupportedError, match=rf"{key}.* is .*the plan of model_type {model_type} does not compute"):
        plan_for(SMALL[model_type](**{key: COMPUTING[key]}))
    for neutral in (None, False, [], *NEUTRAL.get(key, ())):
        assert plan_for(SMALL[model_type](**{key: neutral})).ops


def test_who_sees_whom_is_as_the_config_says_or_refused():
    """transformers takes the causal mask away where a config says so."""
    for made in (config(), SMALL["mistral"]()):
        assert plan_for(Config(made.raw | {"is_causal": True})).causal
        with pytest.raises(UnsupportedError, match="is_causal False"):
            plan_for(Config(made.raw | {"is_causal": False}))
    assert not plan_for(dream_config(is_causal=False)).causal
    for made in (dream_config(), llada_config()):
        with pytest.raises(UnsupportedError, match="is_causal"):
            plan_for(Config(made.raw | {"is_causal": True}))


@pytest.mark.parametrize("key", ["attention_bias", "mlp_bias"])
def test_biases_that_mistral_cannot_have_are_refused(key):
    assert plan_for(SMALL["mistral"](**{key: False})).ops
    with pytest.raises(UnsupportedError, match=key):
        plan_for(SMALL["mistral"](**{key: True}))


@given(
    model_type=model_types,
    value=st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2),
)
def test_other_unknown_keys_are_named_unless_they_say_nothing(model_type, value):
    """A key of no known meaning: null, false and emptiness pass in silence, whatever else it says is told."""
    silent = value is False or value == "" or value == []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        plan_for(SMALL[model_type](vibe=value, mood=None))
    assert [("'vibe'" in str(w.message), "mood" in str(w.message)) for w in told] == [] if silent else [(True, False)]


def test_messages_are_bounded_whatever_a_key_is():
    for key in ("x" * 100_000, "attention_" + "x" * 100_000):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                plan_for(config(**{key: "y" * 100_000}))
                message = str(told[0].message)
            except UnsupportedError as error:
                message = str(error)
        assert len(message) < 500 and "\n" not in message
    with pytest.raises(UnsupportedError, match="model_type") as refused:
        plan_for(config(model_type="x" * 100_000))
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("dynamic", "text's length"), ("mrope", "several coordinates"), ("new", "not known")],
)  # fmt: skip
def test_a_rope_type_is_refused_for_its_own_reason(kind, reason):
    with pytest.raises(UnsupportedError, match=f"rope_type '{kind}' .*{reason}"):
        plan_for(config(rope_scaling={"rope_type": kind, "factor": 2.0}))


def test_a_factor_without_a_rope_type_is_refused():
    with pytest.raises(UnsupportedError, match=r"'factor' is 4\.0, but rope_type default does not read it"):
        plan_for(config(rope_scaling={"factor": 4.0}))
    assert plan_for(config(rope_scaling={"type": "default", "factor": 1.0})).ops


def test_llada_scales_no_rotary_positions():
    with pytest.raises(UnsupportedError, match="rope_type 'linear'"):
        plan_for(llada_config(rope_scaling={"rope_type": "linear", "factor": 2.0}))
