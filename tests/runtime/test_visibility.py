"""Who sees whom, against the plain definition: a matrix of truths."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.runtime.forward import Forward
from fastdistill.runtime.pending import nothing_pending
from fastdistill.runtime.visibility import chain_runs, node_runs, runs_of
from tests.strategies import Setting, token_lists


def slots_of(runs: np.ndarray) -> list[int]:
    return [slot for start, length in runs for slot in range(start, start + length)]


def lists_of(runs: np.ndarray, offsets: np.ndarray) -> list[list[int]]:
    assert runs.dtype == np.int32 and offsets.dtype == np.int64 and runs.flags.c_contiguous
    return [slots_of(runs[a:b]) for a, b in pairwise(offsets)]


@given(slots=st.lists(st.integers(0, 30), min_size=1, max_size=30))
def test_runs_say_the_same_slots_in_the_same_order_and_never_touch(slots):
    runs = runs_of(np.array(slots))
    assert slots_of(runs) == slots
    assert (runs[:, 1] >= 1).all()
    assert all(start + length != following for (start, length), (following, _) in pairwise(runs))


@given(length=st.integers(0, 20), rows=st.integers(1, 8))
def test_row_i_of_a_chain_sees_everything_up_to_itself(length, rows):
    assert lists_of(*chain_runs(length, rows)) == [list(range(length + i + 1)) for i in range(rows)]


@given(
    context=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=10, unique_by=lambda pair: pair[0]),
    extras=st.lists(
        st.lists(st.tuples(st.integers(41, 80), st.integers(0, 14)), min_size=1, max_size=6), min_size=1, max_size=4
    ),
    place=st.floats(0, 1),
)
def test_a_nodes_list_holds_what_it_sees_in_position_order(context, extras, place):
    insert = round(place * len(context))

    def pair(rows):
        return np.array([slot for slot, _ in rows], int), np.array([position for _, position in rows], int)

    lists = lists_of(*node_runs(*pair(context), [pair(rows) for rows in extras], insert))
    for got, rows in zip(lists, extras, strict=True):
        seen = [*context[:insert], *rows, *context[insert:]]
        assert sorted(got) == sorted(slot for slot, _ in seen)
        positions = dict(seen)
        if len(positions) == len(seen):  # no slot drawn twice
            assert got == [
                slot for slot, _ in sorted(seen, key=lambda pair: pair[1])
            ]  # stable: equals as in the sequence


@st.composite
def forests(draw):
    """Batches of (nodes, parents), numbered on, and for every row its node."""
    batches, node_of, parents = [], [], []
    for _ in range(draw(st.integers(1, 3))):
        count = draw(st.integers(1, 4))
        rows = [*range(count), *draw(st.lists(st.integers(0, count - 1), max_size=4))]
        nodes = [len(parents) + node for node in draw(st.permutations(rows))]
        fresh = [draw(st.integers(-1, len(parents) + i - 1)) for i in range(count)]
        batches.append((nodes, fresh))
        node_of += nodes
        parents += fresh
    return batches, node_of, parents


@given(forest=forests(), base=st.integers(0, 5))
def test_a_row_sees_its_node_and_all_its_ancestors_and_its_default_position_is_its_depth(forest, base):
    batches, node_of, parents = forest
    pending = nothing_pending((0, 0), 2)
    for nodes, fresh in batches:
        pending = pending.extended(np.zeros(len(nodes), np.int32), nodes, fresh, None, base)

    def ancestors(node):  # and the node
        return {node} | (ancestors(parents[node]) if parents[node] >= 0 else set())

    assert pending.nodes.tolist() == node_of and list(pending.parents) == parents
    for node in range(len(parents)):
        seen = {row for row, owner in enumerate(node_of) if owner in ancestors(node)}
        assert set(pending.seen_by(node).tolist()) == seen and len(pending.seen_by(node)) == len(seen)
        above = sum(owner in ancestors(node) - {node} for owner in node_of)
        members = [row for row, owner in enumerate(node_of) if owner == node]
        assert pending.positions[members].tolist() == [base + above + i for i in range(len(members))]


@given(context=token_lists(3, 12), forest=forests(), data=st.data())
def test_a_session_lays_out_each_nodes_list_as_the_matrix_says(context, forest, data):
    """Every slot of every list: committed rows but the hidden ones, ancestors, the node itself; nothing else."""
    batches, node_of, parents = forest
    start = data.draw(st.integers(0, len(context)))
    hidden = range(start, data.draw(st.integers(start, len(context))))
    session = Setting("odd", "q8").session(max_rows=64)
    session.prefill(context)
    for nodes, fresh in batches:
        arguments = dict(nodes=nodes, parents=fresh, replace=(hidden.start, hidden.stop))
        share = session.context.lay_out(Forward([1] * len(nodes), **arguments))
        first = share.first_slot - session.length
        lists = lists_of(share.runs, share.run_offsets)
        for row, node in enumerate(node_of[first : first + len(nodes)]):
            lineage, member = set(), node
            while member >= 0:
                lineage.add(member)
                member = parents[member]
            want = {slot for slot in range(len(context)) if slot not in hidden}
            want |= {
                len(context) + other for other, owner in enumerate(node_of[: first + len(nodes)]) if owner in lineage
            }
            assert set(lists[share.nodes[row]]) == want
        session.forward([1] * len(nodes), rows=(), **arguments)


@given(context=token_lists(1, 12), forest=forests(), data=st.data())
def test_lists_are_in_position_order_whatever_positions_are_given(context, forest, data):
    """Among equals: the committed rows, then ancestors before descendants, then as given."""
    batches, _, parents = forest
    session = Setting("odd", "q8").session(max_rows=64)
    near = st.integers(max(0, len(context) - 4), len(context) + 4)
    session.forward(context, positions=data.draw(st.sampled_from([range(len(context)), [*range(1, len(context)), 0]])))
    places, owners = [], []
    for nodes, fresh in batches:
        given = data.draw(st.none() | st.lists(near, min_size=len(nodes), max_size=len(nodes)))
        share = session.context.lay_out(Forward([1] * len(nodes), nodes=nodes, parents=fresh, positions=given))
        places, owners = places + share.positions.tolist(), owners + nodes
        lists = lists_of(share.runs, share.run_offsets)
        for row, node in enumerate(nodes):
            lineage = [node]
            while parents[lineage[0]] >= 0:
                lineage.insert(0, parents[lineage[0]])
            rows = [other for member in lineage for other, owner in enumerate(owners) if owner == member]
            seen = [*enumerate(session.context.positions[: session.length].tolist())]
            seen += [(session.length + other, places[other]) for other in rows]
            assert lists[share.nodes[row]] == [slot for slot, _ in sorted(seen, key=lambda pair: pair[1])]
        session.forward([1] * len(nodes), nodes=nodes, parents=fresh, positions=given, rows=())


@given(forest=forests(), data=st.data())
def test_a_path_is_text_where_its_rows_and_all_that_they_see_are_alone_in_their_nodes(forest, data):
    batches, node_of, parents = forest
    pending = nothing_pending((0, 0), 2)
    for nodes, fresh in batches:
        pending = pending.extended(np.zeros(len(nodes), np.int32), nodes, fresh, None, 0)
    node = data.draw(st.integers(0, len(parents) - 1))
    path = pending.seen_by(node).tolist()
    path = path[: len(path) - data.draw(st.integers(0, node_of.count(node)))]  # of the last node, some rows or none
    pending.check_path(path)
    alone = all(node_of.count(member) == 1 for member in {node_of[row] for row in path})
    assert pending.is_text(path) == alone
