"""Decoding over any session."""

from __future__ import annotations

from collections.abc import Sequence

from fastdistill.arguments import check_has, check_instance, check_integer, check_integers
from fastdistill.decode.autoregressive import Autoregressive
from fastdistill.decode.check_decoder import check_decoder
from fastdistill.decode.constraint import Constraint, check_constraint, check_follows
from fastdistill.decode.costs import Costs, check_costs
from fastdistill.decode.engine import Task, write
from fastdistill.decode.generation import Generation, unless_failed
from fastdistill.decode.request import Decoder, Request
from fastdistill.decode.text import Text, prepare_session
from fastdistill.decode.unmask.decoder import Unmask
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.runtime.forward import SessionLike


def generate(
    session: SessionLike,
    prompt: Sequence[int],
    max_tokens: int = 128,
    sampler: Sampler | None = None,
    end_tokens: frozenset[int] = frozenset(),
    decoder: Decoder | None = None,
    costs: Costs | None = None,
    constraint: Constraint | None = None,
) -> Generation:
    """Decode over any session, `fd.from_callable`'s included: tokens in, tokens out (`Generation.text` stays empty).

    Parameters
    ----------
    session : SessionLike
        to write in
    prompt : Sequence[int]
        token ids
    max_tokens : int, default 128
        most new tokens
    sampler : Sampler, optional
        how a token is chosen; None: the likeliest
    end_tokens : frozenset[int], optional
        those that end the text
    decoder : Decoder, optional
        None: Autoregressive(), of a masked diffusion model Unmask()
    costs : Costs, optional
        of the session's forwards, for decoders that weigh their guesses and have none of their own
    constraint : Constraint, optional
        what the text has to be (`fd.constraint`)

    Examples
    --------
    >>> table = np.eye(10, k=1, dtype=np.float32)  # after token t comes t + 1
    >>> session = fd.from_callable(lambda ids: table[ids], vocab_size=10)
    >>> fd.decode.generate(session, [3], max_tokens=4).tokens
    [4, 5, 6, 7]
    """
    check_has(
        "session",
        session,
        ("run", "truncate", "common_prefix", "capacity", "vocab_size", "causal", "runner"),
        "a session",
    )
    ids = check_integers("prompt", prompt, 0, session.vocab_size - 1, empty=True)
    max_tokens = check_integer("max_tokens", max_tokens, 0, 1 << 30)
    check_costs(costs)
    measured = None if costs is None else lambda: costs
    cached = prepare_session(session, ids)
    sampler = Sampler() if sampler is None else sampler
    check_instance("sampler", sampler, Sampler)
    ends = frozenset(check_integers("end_tokens", end_tokens, 0, (1 << 31) - 1, empty=True).tolist())
    if decoder is None:
        decoder = Autoregressive() if session.causal else Unmask()
    check_decoder(decoder)
    if constraint is not None:
        check_follows(decoder)
        check_constraint(constraint)
    request = Request(
        ids, cached, sampler, max_tokens=max_tokens, end_tokens=ends, measured_costs=measured, constraint=constraint
    )
    chosen = decoder
    return unless_failed(write([Task(ids, lambda _: Text(session, request, chosen, None))]))[0]
