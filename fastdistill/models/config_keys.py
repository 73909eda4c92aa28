"""The keys of config.json: which change no logit, and which no plan here computes.

A family reads the keys of its own table (its `MODEL_TYPES`) and no others. transformers sets any key on a config and lets the model's code
take no notice; but a key that another family computes with says that this model is not what its model_type claims, and
is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.errors import UnsupportedError
from fastdistill.messages import listed, short, warn

# Where null is a value of its own, and not the same as absent.
NULL_IS_A_VALUE = frozenset(
    {
        "num_key_value_heads",
        "sliding_window",
        "embedding_size",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "rotary_dim",
    }
)

# Every family's rotary positions are read by rope.py, absent ones as rope_theta 10000 without scaling.
_ROPE = frozenset({"rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor"})

# What describes the file, how to write text, what else to return, and how the model was trained: none of it changes a logit.
_HARMLESS_WORDS = """
architectures auto_map model_type _name_or_path name_or_path _commit_hash transformers_version torch_dtype dtype
quantization_config is_llama_config transformers.js_config model_max_length max_sequence_length custom_pipelines
finetuning_task task_specific_params tokenizer_class prefix problem_type id2label label2id num_labels _num_labels
n_ctx n_special predict_special_tokens ff_factor

bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id cls_token_id mask_token_id decoder_start_token_id
max_length max_new_tokens min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature
top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
num_return_sequences forced_bos_token_id forced_eos_token_id remove_invalid_values suppress_tokens begin_suppress_tokens
exponential_decay_length_penalty force_bos_token_to_be_generated

output_past add_bias_logits extra_pos_embeddings initializer_factor n_positions scalable_attention
use_cache return_dict return_dict_in_generate output_attentions output_hidden_states output_scores torchscript
use_bfloat16 tf_legacy_loss is_decoder is_encoder_decoder add_cross_attention cross_attention_hidden_size
tie_encoder_decoder pruned_heads chunk_size_feed_forward cache_implementation _sliding_window_pattern attn_implementation _attn_implementation
_attn_implementation_autoset _attn_implementation_internal attn_impl _flash_attn_2_enabled flash_attention
use_flash_attention use_flash_attention_2 use_flash_attn attention_softmax_in_fp32 scale_attention_softmax_in_fp32 reorder_and_upcast_attn
num_logits_to_keep logits_to_keep precision rope_full_precision pretraining_tp

fuse_cross_entropy micro_forward skip_checkpoint ep_size use_deepep debug
directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type output_past tie_weights_ sinusoidal_pos_embds
reference_compile repad_logits_with_grad sparse_prediction sparse_pred_ignore_index deterministic_flash_attn initializer_cutoff_factor
sbert_ce_default_activation_function sentence_transformers

initializer_range init_std init_fn init_device init_cutoff_factor block_group_size gradient_checkpointing
use_reentrant_checkpointing output_router_logits router_aux_loss_coef router_jitter_noise neftune_noise_alpha alibi_bias_max attention_layer_norm_with_affine max_window_layers
"""
HARMLESS = frozenset(_HARMLESS_WORDS.split())
_HARMLESS_PATTERN = re.compile("dropout|pdrop|layerdrop|_version$|^summary_|^unsloth_|^transformers_")

# Keys that other families compute with, and the values at which they compute nothing.  False and null never do.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
    "logit_scale": (1,),
    "logits_scaling": (1,),
    "attention_multiplier": (),
    "embedding_multiplier": (1,),
    "residual_multiplier": (1,),
    "query_pre_attn_scalar": (),
    "scale_emb": (1,),
    "scale_depth": (),
    "dim_model_base": (),
    "rotary_pct": (1,),
    "rotary_dim": (),
    "clip_qkv": (),
    "num_experts": (0, 1),
    "num_local_experts": (0, 1),
    "num_experts_per_tok": (0, 1),
    "n_routed_experts": (0,),
    "layer_types": ("full_attention",),
    "position_embedding_type": ("rope", "rotary", "absolute"),  # BertConfig's default, which old files carry along
    "hidden_activation": ("silu",),
    "hidden_act": ("gelu_pytorch_tanh",),  # in Gemma's files beside the key that its class reads
    "full_attn_mod": (1,),
    "interpolate_factor": (1,),
    "rotary_scaling_factor": (1,),
    "per_layer_config": (),
    "quantization": (),
    "text_config": (),
    "vision_config": (),
}
_COMPUTING = re.compile(
    "^attn_|^attention_|softcap|soft_cap|multiplier|clip_qkv|alibi|expert|(^|_)moe(_|$)|rope_|rotary|lora_rank|window|sink|mrope|causal|bidirectional"
    "|scal(e|ing)(_|$)|(^|_)qk_|norm_(type|first|after|topk)|(^|_)(pre|post|sub|sandwich)_?(layer_?)?norm|(^|_)bias(_|$)"
    "|parallel_(attn|attention|residual|block)|layer_types|head_dim|residual|quantiz"
)


def without(keys: Mapping[str, Any], *left_out: str) -> dict[str, Any]:
    """A family's table of keys for another that lacks some of them."""
    assert keys.keys() >= set(left_out), left_out
    return {key: value for key, value in keys.items() if key not in left_out}


def completed(config: Config, model_type: str, defaults: Mapping[str, Any]) -> Config:
    """The config as the family of this model_type reads it: its class's keys alone, absent ones as the class has them.

    Parameters
    ----------
    config : Config
    model_type : str
    defaults : Mapping[str, Any]
        what the class has for an absent key: of each family's `MODEL_TYPES`

    Raises
    ------
    UnsupportedError
        for a key that the family does not know and that looks like part of the computation; a warning names other keys
        that it does not know
    """
    unknown = []
    for key, value in config.raw.items():
        if key in defaults or key in _ROPE or key in HARMLESS or _HARMLESS_PATTERN.search(key):
            continue
        if _is_neutral(value, NEUTRAL.get(key, ())):
            continue
        if key in NEUTRAL or _COMPUTING.search(key):
            raise UnsupportedError(
                f"{config.source}: {short(key)} is {short(value)}, which the plan of model_type {model_type} does not compute; "
                "where it means nothing to this model, take the key out of the file"
            )
        unknown.append(key)
    if unknown:
        warn(
            f"{config.source}: model_type {model_type} does not know {listed(map(short, unknown))}; taken to change nothing"
        )
    return config.narrowed(defaults, NULL_IS_A_VALUE)


def _is_neutral(value: Any, neutral: tuple[Any, ...]) -> bool:
    """Whether a key of this value leaves the computation as it is; a list, whether all of its items do."""
    if type(value) is list:
        return all(_is_neutral(item, neutral) for item in value)
    if value is None or value is False or value == "" or value == {}:
        return True
    return value is not True and value in neutral
