"""What configs say of a mixture of experts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastdistill.checkpoint.config import Config
from fastdistill.messages import short
from fastdistill.models.decoder import Experts
from fastdistill.ops.experts import MOST_EXPERTS

# How many there are: files say it by either name, a family's table has the number that its class has for none.
COUNTS = ("num_experts", "num_local_experts")
# Of all layers, three times what the largest models have: a plan names each before a tensor is looked at.
MOST_IN_ALL = 1 << 16


def experts(config: Config, inner: str, **rest: Any) -> Experts:
    """The mixture that a config says, experts as wide as the key `inner`; `rest` as in `Experts`."""
    key = next((key for key in COUNTS if config.raw.get(key) is not None), COUNTS[0])
    number = config.integer(key, minimum=1, maximum=MOST_EXPERTS)
    if any(config.raw.get(other, number) not in (None, number) for other in COUNTS):
        config.refuse(key, number, f"what {COUNTS[1]} is, {short(config.raw[COUNTS[1]])}")
    layers = config.integer("num_hidden_layers", minimum=1, maximum=1 << 10)
    if number * layers > MOST_IN_ALL:
        config.refuse(key, number, f"at most {MOST_IN_ALL // layers} in each of {layers} layers")
    return Experts(
        count=number,
        top_k=config.integer("num_experts_per_tok", minimum=1, maximum=number),
        inner=config.integer(inner, minimum=1, maximum=1 << 18),
        **{"renormalised": config.boolean("norm_topk_prob", default=False)} | rest,
    )


def sparse_layers(config: Config, mixture: Experts) -> Callable[[int], Experts | None]:
    """The mixture in every `decoder_sparse_step`-th layer that `mlp_only_layers` does not name."""
    step = config.integer("decoder_sparse_step", minimum=1)
    dense = config.integers("mlp_only_layers", default=[])
    return lambda layer: mixture if (layer + 1) % step == 0 and layer not in dense else None
