"""Log-probabilities of given tokens, and the chain rule from those to the logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdistill.arguments import REAL, as_array, check_array, check_number
from fastdistill.distill.loss import IGNORED, counted
from fastdistill.errors import ArgumentError


def token_log_prob(logits: np.ndarray, tokens: Any, *, temperature: float = 1.0) -> np.ndarray:
    """The log-probability of a token in each row.

    Parameters
    ----------
    logits : float32 or float64 (n, vocab)
        -inf is a ban
    tokens : int (n,)
        -100 where there is none: such a row is not read
    temperature : float, default 1.0
        that the logits are divided by, above 0; that of the draw, where the tokens were drawn from these

    Returns
    -------
    np.ndarray float64 (n,)
        -inf of a token that is banned; 0 where there is none

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the row
    """
    rows, vocab = check_logits("logits", logits)
    chosen, read = check_tokens(tokens, rows, vocab)
    lead, mass = leads("logits", logits, read, temperature)
    return np.where(read, lead[np.arange(rows), chosen] - np.log(mass), 0)


def log_prob_gradient(student: np.ndarray, tokens: Any, coefficients: Any, *, temperature: float = 1.0) -> np.ndarray:
    """The gradient by logits of an objective whose gradient by the tokens' log-probabilities is known.

    Row n is coefficients_n (onehot(token_n) - softmax(student_n / temperature)) / temperature.

    Parameters
    ----------
    student : float32 or float64 (n, vocab)
        logits; -inf is a ban
    tokens : int (n,)
        -100 where there is none
    coefficients : float (n,)
        the gradient by `token_log_prob(student, tokens, temperature=temperature)`; a row with 0 is not read
    temperature : float, default 1.0
        that the logits are divided by, above 0

    Returns
    -------
    np.ndarray (n, vocab)
        in the dtype of the logits

    Raises
    ------
    ArgumentError
    NotFiniteError
        which names the array and the row
    """
    rows, vocab = check_logits("student", student)
    chosen, read = check_tokens(tokens, rows, vocab)
    by_token = as_array("coefficients", coefficients, np.float64, (rows,))
    by_token = np.where(read, by_token, 0)
    counted("coefficients", by_token, np.ones(rows))
    lead, mass = leads("student", student, by_token != 0, temperature)
    return by_logits(lead, mass, chosen, by_token / temperature).astype(student.dtype, copy=False)


def check_logits(name: str, logits: np.ndarray) -> tuple[int, int]:
    """Their shape, (n, vocab)."""
    rows, vocab = check_array(name, logits, REAL, ("n", "vocab"))
    if vocab == 0:
        raise ArgumentError(f"{name} must have at least one column, got shape {logits.shape}")
    return rows, vocab


def check_tokens(given: Any, rows: int, vocab: int) -> tuple[np.ndarray, np.ndarray]:
    """int32 (n,), 0 where there is none, and bool (n,), where there is one."""
    tokens = as_array("tokens", given, np.int32, (rows,))
    wrong = (tokens != IGNORED) & ((tokens < 0) | (tokens >= vocab))
    if wrong.any():
        row = int(wrong.argmax())
        raise ArgumentError(f"tokens must lie in 0..{vocab - 1}, or be {IGNORED}, got {tokens[row]} in row {row}")
    return np.where(tokens == IGNORED, 0, tokens), tokens != IGNORED


def leads(name: str, logits: np.ndarray, read: np.ndarray, temperature: Any) -> tuple[np.ndarray, np.ndarray]:
    """float64 (n, vocab), logits / temperature less the best of the row, and (n,), the sum of its exponentials.

    Zeros in rows that are not read.
    """
    temperature = check_number("temperature", temperature, 1e-30, 1e30)
    z = counted(name, logits, read, bans=True)
    z -= z.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        z /= temperature
    return z, np.exp(z).sum(axis=1)


def by_logits(lead: np.ndarray, mass: np.ndarray, tokens: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """coefficients_n (onehot(token_n) - e^lead_n / mass_n), in place of the lead."""
    out = np.exp(lead, out=lead)
    out *= (-coefficients / mass)[:, None]
    out[np.arange(len(out)), tokens] += coefficients
    return out
