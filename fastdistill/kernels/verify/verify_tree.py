"""Which path of a drafted tree the target accepts, and the token after it."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

import numpy as np

from fastdistill.arguments import as_array, check_array, check_choice, check_flag, check_integer, check_number
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import check_status, check_workspace, const, ffi, lib, pointer, written
from fastdistill.kernels.verify.residual_distribution import refuse_entries
from fastdistill.messages import short

RULES = {
    "coupled": lib.FD_COUPLED,
    "rejection": lib.FD_REJECTION,
    "block": lib.FD_TRAVERSAL,
    "traversal": lib.FD_TRAVERSAL,
    "typical": lib.FD_TYPICAL,
}
_LENIENCE = ("linear", "square", "exponential")
_MOST = 2**31 - 1


class Verified(NamedTuple):
    """What was decided about each tree, its nodes counted from its own root; -1 after the end.

    Attributes
    ----------
    path : int32 (nodes,)
        accepted nodes, the root first
    tokens : int32 (nodes,)
        what is emitted: the accepted nodes' tokens without the root's, then the final token
    accepted : int32 (trees,)
        how many nodes beside the root; one token more is emitted
    bonus : int32 (trees,)
        the final token
    verdicts : int8 (nodes,)
        1 accepted, the root too; -1 looked at and not accepted; 0 not looked at
    """

    path: np.ndarray
    tokens: np.ndarray
    accepted: np.ndarray
    bonus: np.ndarray
    verdicts: np.ndarray


def verify_tree_workspace(rule: str, nodes: int, vocab: int) -> np.ndarray:
    """Memory for `verify_tree` over trees of up to so many nodes, to use again and again; taken as it is written.

    Parameters
    ----------
    rule : str
        that of `verify_tree`
    nodes : int
        of all trees, at most
    vocab : int
        columns of the laws
    """
    code = RULES[check_choice("rule", rule, RULES)]
    nodes, vocab = check_integer("nodes", nodes, 1, _MOST), check_integer("vocab", vocab, 1, _MOST)
    if nodes * vocab > 1 << 44:  # 64 TB; the count of bytes stays far below 2^63
        raise ArgumentError(f"nodes times vocab must be at most 2^44, got {nodes} x {vocab}")
    return np.empty(lib.fd_verify_tree_workspace(code, nodes, vocab), np.uint8)


def verify_tree(
    parents: np.ndarray,
    tokens: np.ndarray,
    target: np.ndarray,
    *,
    rule: str = "coupled",
    offsets: np.ndarray | None = None,
    drafts: np.ndarray | None = None,
    draft_rows: np.ndarray | None = None,
    replacement: bool = True,
    uniforms: np.ndarray | None = None,
    lenience: tuple[str, float] | None = None,
    epsilon: float = 0.09,
    delta: float = 0.3,
    workspace: np.ndarray | None = None,
) -> Verified:
    """Which path of each tree the target accepts, and the token after it.

    Parameters
    ----------
    parents : int32 (nodes,)
        within its tree, -1 for the root, which comes first; parents[i] < i
    tokens : int32 (nodes,)
        the root's, already committed, is not looked at
    target : np.ndarray
        "coupled": int32 (nodes,), the target's draw after each node. Others: float32 (nodes, vocab), its law after each
        node, filtered and normalised; rows that the walk does not come to are not read
    rule : str, default "coupled"
        - "coupled": follow the target's own draws: the same text as plain decoding with these draws
        - "rejection": child by child from the root (Leviathan et al. 2023; on trees SpecInfer, Miao et al. 2024)
        - "block": a chain as a whole (Sun et al. 2024)
        - "traversal": a tree from its deepest nodes up (Weng et al. 2025); on a chain it is "block"
        - "typical": the longest path of tokens with p > min(epsilon, delta e^-entropy) (Medusa, Cai et al. 2024)

        The middle three keep the target's law (its distribution) exactly. "typical", and any lenience below 1, do not.
    offsets : int64 (trees + 1,), optional
        tree t is nodes offsets[t] .. offsets[t + 1]; None: one tree
    drafts : float32 (rows, vocab), optional
        laws that tokens were drawn from, as they were drawn from
    draft_rows : int32 (nodes,), optional
        of each token the row it was drawn from; -1: it was chosen, not drawn. None: all were chosen
    replacement : bool, default True
        False: siblings from one row were drawn in turn without replacement
    uniforms : float64 (nodes,) in [0, 1), optional
        a node's decides about it, the root's draws the final token
    lenience : tuple[str, float], optional
        "rejection" of chains: (name, e), e in [1e-6, 1]; f(p) stands for p, "linear" p / e, "square" p / e^2,
        "exponential" p^e (DistillSpec, Zhou et al. 2024)
    epsilon, delta : float, default 0.09 and 0.3
        of "typical", at least 0
    workspace : uint8, optional
        from `verify_tree_workspace`, of one caller at a time; None: made here

    Raises
    ------
    ArgumentError
        a malformed tree, a token or row that is not there, a uniform outside [0, 1), a token that its row does not
        hold, a law that does not sum to 1 or has a negative entry
    NotFiniteError
        for NaN or infinity in a law
    BusyError
        where another call is writing the workspace

    Notes
    -----
    Of a refused child drawn from q the law p leaves max(p - q, 0), normalised; if that is nothing, by rounding, p
    stays.

    Examples
    --------
    >>> parents = np.array([-1, 0, 0, 2], np.int32)  # two guesses after the root, one after the second
    >>> tokens = np.array([5, 8, 9, 4], np.int32)
    >>> draws = np.array([9, 1, 4, 6], np.int32)  # of the target, after each node
    >>> found = fd.kernels.verify_tree(parents, tokens, draws)
    >>> found.accepted, found.tokens  # both that the target drew too, and its next token
    (array([2], dtype=int32), array([ 9,  4,  6, -1], dtype=int32))
    """
    parents = as_array("parents", parents, np.int32, ("nodes",))
    nodes = len(parents)
    tokens = as_array("tokens", tokens, np.int32, (nodes,))
    check_choice("rule", rule, RULES)
    offsets, most_nodes = _offsets(offsets, nodes)
    trees = len(offsets) - 1
    settings = ffi.new("struct fd_verifier *")
    settings.rule, settings.chain = RULES[rule], rule == "block"
    settings.replacement, settings.scale, settings.exponent = check_flag("replacement", replacement), 1, 1
    settings.epsilon = check_number("epsilon", epsilon, 0, np.inf)
    settings.delta = check_number("delta", delta, 0, np.inf)
    rows = vocab = 0
    if rule == "coupled":
        target = as_array("target", target, np.int32, (nodes,))
        if uniforms is not None:
            raise ArgumentError('uniforms do not belong to rule "coupled": its draws are `target`')
    else:
        vocab = check_array("target", target, np.float32, (nodes, "vocab"))[1]
        if vocab == 0:
            raise ArgumentError(f"target must have at least one column, got shape {target.shape}")
        if uniforms is None:
            raise ArgumentError(f'rule "{rule}" needs uniforms, float64 ({nodes},)')
        uniforms = as_array("uniforms", uniforms, np.float64, (nodes,))
    if rule in ("coupled", "typical"):
        if drafts is not None or draft_rows is not None:
            raise ArgumentError(
                f'drafts and draft_rows do not belong to rule "{rule}": it does not ask how tokens were drafted'
            )
    elif draft_rows is not None:
        draft_rows = as_array("draft_rows", draft_rows, np.int32, (nodes,))
        if drafts is not None:
            rows = check_array("drafts", drafts, np.float32, ("rows", vocab))[0]
    elif drafts is not None:
        raise ArgumentError("drafts needs draft_rows: the row that each token was drawn from")
    if lenience is not None:
        _lenient(settings, rule, lenience)
    if workspace is not None:
        needed = 0 if rule == "coupled" else lib.fd_verify_tree_workspace(RULES[rule], most_nodes, vocab)
        room: np.ndarray | None = check_workspace(workspace, needed)
    else:
        room = None if rule == "coupled" else verify_tree_workspace(rule, most_nodes, vocab)
    found = Verified(
        np.empty(nodes, np.int32), np.empty(nodes, np.int32), np.empty(trees, np.int32), np.empty(trees, np.int32),
        np.empty(nodes, np.int8),
    )  # fmt: skip
    drawn, laws = (target, None) if rule == "coupled" else (None, target)
    where = ffi.new("int64_t[2]")
    reads = {"target": target, "drafts": drafts, "parents": parents, "tokens": tokens, "offsets": offsets}
    with written({"workspace": workspace}, reads | {"draft_rows": draft_rows, "uniforms": uniforms}):
        status = lib.fd_verify_tree(
            trees, vocab, rows, const(offsets), const(parents), const(tokens), const(drawn), const(laws), const(drafts),
            const(draft_rows), const(uniforms), settings, *map(pointer, found), pointer(room), where,
        )  # fmt: skip
    if status != lib.FD_OK:
        _refuse(status, where[0], where[1], parents, tokens, target, offsets, drafts, draft_rows, rows, uniforms)
    return found


def _offsets(offsets: np.ndarray | None, nodes: int) -> tuple[np.ndarray, int]:
    """Where trees begin and the last one ends, and how many nodes the largest has."""
    if offsets is None and nodes > 0:
        return np.array([0, nodes], np.int64), nodes
    offsets = as_array("offsets", np.zeros(2, np.int64) if offsets is None else offsets, np.int64, ("trees + 1",))
    ascend = (offsets[1:] > offsets[:-1]).all()  # differences could overflow
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != nodes or not ascend:
        raise ArgumentError(
            f"offsets must ascend from 0 to {nodes}, at least one node a tree, got {short(offsets.tolist())}"
        )
    return offsets, int((offsets[1:] - offsets[:-1]).max(initial=1))


def _lenient(settings: Any, rule: str, lenience: Any) -> None:
    if rule != "rejection":
        raise ArgumentError(f'lenience belongs to rule "rejection" of chains alone, got rule "{rule}"')
    if not isinstance(lenience, tuple) or len(lenience) != 2:
        raise ArgumentError(f"lenience must be (name, e), got {short(lenience)}")
    name, e = check_choice("lenience[0]", lenience[0], _LENIENCE), check_number("lenience[1]", lenience[1], 1e-6, 1)
    settings.chain = 1
    if name == "exponential":
        settings.exponent = e
    else:
        settings.scale = 1 / e if name == "linear" else 1 / e**2


def _refuse(
    status: int, node: int, row: int, parents: np.ndarray, tokens: np.ndarray, target: np.ndarray, offsets: np.ndarray,
    drafts: Any, draft_rows: Any, rows: int, uniforms: Any,
) -> NoReturn:  # fmt: skip
    """Raise what the status says of a node, counted over all trees."""
    first = int(offsets[np.searchsorted(offsets, node, side="right") - 1])
    at = f"[{node}]" if first == 0 else f"[{node}] (node {node - first} of its tree)"
    if status == lib.FD_NO_LAW:
        laws = {f"target[{node}]": target[node]} | ({} if row < 0 else {f"drafts[{row}]": drafts[row]})
        refuse_entries("verify_tree", **laws)
    law = f"target[{node}]" if row < 0 else f"drafts[{row}]"
    messages = {
        lib.FD_NO_TREE: lambda: (
            f"parents{at} must be -1: a tree has one root, its first node; got {parents[node]}"
            if node == first
            else f"parents{at} must lie in 0..{node - first - 1}: an earlier node of its tree, got {parents[node]}"
        ),
        lib.FD_NO_CHAIN: lambda: (
            f"parents{at} must be {node - first - 1}: this rule, or lenience, needs a chain; got {parents[node]}"
        ),
        lib.FD_NO_TOKEN: lambda: f"tokens{at} must lie in 0..{target.shape[1] - 1}, got {tokens[node]}",
        lib.FD_NO_ROW: lambda: (
            f"draft_rows{at} must be -1 or a row of drafts, which has {rows}; got {draft_rows[node]}"
        ),
        lib.FD_NO_CHANCE: lambda: f"uniforms{at} must lie in [0, 1), got {uniforms[node]}",
        lib.FD_NO_MASS: lambda: f"target[{node}] holds no mass: there is no token to draw",
        lib.FD_NO_UNIT: lambda: (
            f"{law} must sum to 1, within {2**-8 + target.shape[1] * 2**-24:.2g}: it is not a law; it sums to "
            f"{float((target[node] if row < 0 else drafts[row]).sum(dtype=np.float64)):.6g}"
        ),
        lib.FD_NOT_DRAWN: lambda: (
            f"tokens{at} = {tokens[node]} cannot have been drawn from drafts[{row}]: that row, without what earlier siblings "
            f"took, holds nothing there"
        ),
    }
    if status in messages:
        raise ArgumentError(f"verify_tree: {messages[status]()}")
    check_status("verify_tree", status)
    raise AssertionError(status)
