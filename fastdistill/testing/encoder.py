"""An encoder on this machine: a text has the same bits alone and among others, at every level and by any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import numpy as np

from fastdistill.api import load
from fastdistill.runtime.encode import ROWS, hidden_states, pooled
from fastdistill.runtime.network import Network
from fastdistill.runtime.profile import Profile
from fastdistill.testing.report import ModelSpeed

LENGTHS = 1, 17, 40, 3, 16  # tokens of the texts: less and more than a block of 16 rows
_TIMED = 128  # tokens of each text that is timed


def encoder_hashes(name: str, threads: int) -> Iterator[tuple[str, str]]:
    """At the selected level, ways to read some texts, and the SHA-256 of all that the model makes of them.

    Parameters
    ----------
    name : str
        what `load` takes, of an encoder
    threads : int
        of each pass
    """
    network = load(name, threads=threads).network
    texts = [_text(network, length, start) for start, length in enumerate(LENGTHS)]
    yield "alone", _hash(network, [np.concatenate([*hidden_states(network, [text])]) for text in texts])
    yield "together", _hash(network, [*hidden_states(network, texts)])


def encoder_speed(name: str, threads: int | None, seconds: float) -> ModelSpeed:
    """Time passes over as many texts of 128 tokens as share one; as `model_speed`."""
    network = load(name, threads=threads).network
    text = _text(network, _TIMED)
    with Profile() as profile:
        while profile.prefill.seconds < seconds:
            for _ in hidden_states(network, [text] * (ROWS // text.shape[1])):
                pass
    found = profile.prefill
    return ModelSpeed(name, found.forwards, found.rows, found.seconds, found.total.bytes // found.forwards)


def _text(network: Network, length: int, start: int = 0) -> np.ndarray:
    """Tokens of a text, int32 (columns, n), n at most what the model has positions for; its second half is of the second part."""
    plan = network.plan
    places = np.arange(start, start + min(length, plan.max_positions))
    columns = [places * 7 % plan.token_rows[0], *(2 * (places - start) // len(places) for _ in plan.token_rows[1:])]
    return np.array(columns, np.int32)


def _hash(network: Network, hidden: list[np.ndarray]) -> str:
    made = sha256(np.concatenate(hidden).astype("<f4").tobytes())
    if network.plan.pooling:
        for array in pooled(network, np.stack([rows[0] for rows in hidden])).values():
            made.update(array.astype("<f4").tobytes())
    return made.hexdigest()
