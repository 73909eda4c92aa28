"""Forwards of several sessions of one model at once, each as if alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

from fastdistill.arguments import check_flag
from fastdistill.errors import ArgumentError, all_given
from fastdistill.messages import short
from fastdistill.runtime.forward import Forward
from fastdistill.runtime.read import Rows
from fastdistill.runtime.session import Session


@overload
def forward_many(requests: Sequence[tuple[Session, Forward]], return_errors: Literal[False] = False) -> list[Rows]: ...
@overload
def forward_many(requests: Sequence[tuple[Session, Forward]], return_errors: bool) -> list[Rows | Exception]: ...
def forward_many(
    requests: Sequence[tuple[Session, Forward]], return_errors: bool = False
) -> list[Rows] | list[Rows | Exception]:
    """`session.run(forward)` for several sessions of one model, in as few passes as their rows fit.

    Parameters
    ----------
    requests : Sequence[tuple[Session, Forward]]
        (session, Forward) pairs, each session once
    return_errors : bool, default False
        give the error of a request in the place of its Rows, and raise none of them

    Returns
    -------
    list[Rows] | list[Rows | Exception]
        one Rows a request

    Raises
    ------
    ArgumentError
        for requests that are none, before anything has run
    Exception
        where every request has failed: what Session.forward raises
    PartialError
        with all results, where some have

    Notes
    -----
    A request fails alone: its session is as it was, the others give the bits that they give without it.
    """
    check_flag("return_errors", return_errors)
    _check_requests(requests)
    if not requests:
        return []
    run = requests[0][0].network.run
    return run(requests) if return_errors else all_given(*_with_errors(run(requests)))


def _with_errors(results: list[Rows | Exception]) -> tuple[list[Rows | Exception], dict[int, Exception]]:
    return results, {number: result for number, result in enumerate(results) if isinstance(result, Exception)}


def _check_requests(requests: Any) -> None:
    """Refuse what is no list of requests."""
    if not isinstance(requests, (list, tuple)):
        raise ArgumentError(f"forward_many takes a list of (session, Forward) pairs, got {short(requests)}")
    for request in requests:
        if not isinstance(request, tuple) or len(request) != 2:
            raise ArgumentError(f"forward_many takes (session, Forward) pairs, got {short(request)}")
        if not isinstance(request[0], Session):
            raise ArgumentError(f"forward_many takes sessions of a model, got {short(request[0])}")
        if not isinstance(request[1], Forward):
            raise ArgumentError(f"forward_many takes a Forward for each session, got {short(request[1])}")
    sessions = [session for session, _ in requests]
    if len({id(session) for session in sessions}) != len(sessions):
        raise ArgumentError("each session may appear once in forward_many")
    if any(session.network is not sessions[0].network for session in sessions):
        raise ArgumentError("all sessions of forward_many must belong to one model")
