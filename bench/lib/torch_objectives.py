"""Divergences as one writes them in torch, for autograd: each from logits (rows, vocab) to the mean over rows."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional


def divergence(
    kind: str,
    student: torch.Tensor,
    teacher: torch.Tensor | None,
    parameter: float | None = None,
    temperature: float = 1.0,
) -> Any:
    log_q = functional.log_softmax(student / temperature, dim=-1)
    if kind == "entropy":
        return -(log_q.exp() * log_q).sum(-1).mean()
    assert teacher is not None
    if kind == "logit_mse":
        return functional.mse_loss(student / temperature, teacher / temperature)
    log_p = functional.log_softmax(teacher / temperature, dim=-1)
    return _rows(kind, log_q, log_p, parameter).mean()


def topk_divergence(
    kind: str,
    student: torch.Tensor,
    tokens: torch.Tensor,
    log_probs: torch.Tensor,
    parameter: float | None = None,
    *,
    tail: str,
    temperature: float = 1.0,
) -> Any:
    """Of the law over the listed tokens (rows, k), and with tail="bucket" one outcome of all others."""
    log_q = functional.log_softmax(student / temperature, dim=-1)
    listed = log_q.gather(-1, tokens)
    if tail == "drop":
        return _rows(kind, listed.log_softmax(-1), (log_probs / temperature).log_softmax(-1), parameter).mean()
    others = log_q.scatter(-1, tokens, -math.inf).logsumexp(-1, keepdim=True)
    left = torch.log1p(-log_probs.exp().sum(-1, keepdim=True))
    return _rows(kind, torch.cat([listed, others], -1), torch.cat([log_probs, left], -1), parameter).mean()


def _rows(kind: str, log_q: torch.Tensor, log_p: torch.Tensor, parameter: float | None) -> torch.Tensor:
    def kl(log_a: torch.Tensor, log_b: torch.Tensor) -> torch.Tensor:
        """KL(a, b)."""
        return functional.kl_div(log_b, log_a, reduction="none", log_target=True).sum(-1)

    def middle(share: float) -> torch.Tensor:
        return torch.logsumexp(torch.stack([log_p + math.log(share), log_q + math.log1p(-share)]), dim=0)

    a = 0.0 if parameter is None else parameter
    match kind:
        case "forward_kl":
            return kl(log_p, log_q)
        case "reverse_kl":
            return kl(log_q, log_p)
        case "jeffreys":
            return kl(log_p, log_q) + kl(log_q, log_p)
        case "mixed_kl":
            return a * kl(log_p, log_q) + (1 - a) * kl(log_q, log_p)
        case "adaptive_kl":
            with torch.no_grad():
                p, order = log_p.exp().sort(dim=-1, descending=True)
                gap = (p - log_q.exp().gather(-1, order)).abs()
                beyond = p.cumsum(-1) > a
                beyond[..., 0] = False
                head = gap.masked_fill(beyond, 0).sum(-1) / gap.sum(-1)
            return head * kl(log_p, log_q) + (1 - head) * kl(log_q, log_p)
        case "jsd":
            m = middle(a)
            return a * kl(log_p, m) + (1 - a) * kl(log_q, m)
        case "skew_kl":
            return kl(log_p, middle(a))
        case "skew_reverse_kl":
            return kl(log_q, middle(1 - a))
        case "alpha":
            return (1 - (a * log_p + (1 - a) * log_q).exp().sum(-1)) / (a * (1 - a))
        case "renyi":
            return torch.logsumexp(a * log_p + (1 - a) * log_q, dim=-1) / (a - 1)
        case "total_variation":
            return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2
        case "log_acceptance":
            return -torch.minimum(log_p.exp(), log_q.exp()).sum(-1).log()
        case "acceptance_hybrid":
            variation = (log_p.exp() - log_q.exp()).abs().sum(-1) / 2
            trust = torch.exp(-a * (1 - variation.detach()))
            return trust * kl(log_p, log_q) + (1 - trust) * variation
        case "soft_cross_entropy":
            return -(log_p.exp() * log_q).sum(-1)
        case "probability_mse":
            return ((log_q.exp() - log_p.exp()) ** 2).mean(-1)
    raise ValueError(f"no formula of {kind}")
