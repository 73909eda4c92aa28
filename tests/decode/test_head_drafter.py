"""A draft head's guesses: what its steps say, in chains and trees; folders that hold another thing; several drafters in turn."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastdistill.checkpoint import write_checkpoint
from fastdistill.decode import Auto, FirstOf, HeadDrafter, PromptLookup, Speculative, StaticTree, Tree, generate
from fastdistill.decode.drafters import DraftRequest
from fastdistill.decode.drafters.copies import Copies, Repeats
from fastdistill.errors import ArgumentError, CheckpointError, UnsupportedError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.models.draft_head import COPIES, D2T, MEDUSA, SHARES, TABLE, TOKENS, SavedHead, kind_of
from fastdistill.runtime import Read, from_callable
from tests.draft_heads import FORMS, TAPPED, head_for, random_head
from tests.small_models import network

NAME, PROMPT = "plain", np.array([3, 4, 5, 3, 4, 6, 7, 3, 9, 3, 4], np.int32)


@pytest.fixture(scope="module")
def target():
    return network(NAME, "f32", threads=1)


def run_of(drafter, target, tree=None):
    session = target.session(60, 16, taps=drafter.taps)
    rows = session.forward(PROMPT, read=Read(hidden=True, sampler=Sampler()))
    run = drafter.start(DraftRequest(PROMPT, session, Sampler(), tree))
    run.accept(rows.tokens[-1:].tolist(), np.empty(0, np.int32), {"hidden": rows.hidden, **rows.taps})
    return run, rows


def read_of(rows, drafter):
    """What the first step reads of the last row, float64."""
    return np.concatenate([rows.hidden[-1], *(rows.taps[name][-1] for name in drafter.taps)]).astype(np.float64)


def copies(text):
    """What followed the last earlier occurrence of the last one and the last two tokens, by looking at each place."""
    found = []
    for k in range(1, COPIES + 1):
        ends = [end for end in range(k, len(text)) if text[end - k : end] == text[-k:]]
        found.append(text[ends[-1]] if ends and len(text) >= k else -1)
    return found


def guessed(head: SavedHead, state, target, text, step):
    """In float64, behind a text: the state that the next step reads, and the shares of the tokens that can be guessed."""
    weights = {name: tensor.to_float32().astype(np.float64) for name, tensor in head.tensors.items()}
    silu = lambda x: x / (1 + np.exp(-x))  # noqa: E731
    if head.shape.recipe == MEDUSA:
        inner = weights[f"heads.{step}.weight"] @ state + weights[f"heads.{step}.bias"]
        return state, law(weights, state + silu(inner))
    normed = lambda x: x / np.sqrt((x * x).mean() + head.shape.epsilon)  # noqa: E731
    norm = lambda x, name: normed(x) * weights[f"{name}.weight"]  # noqa: E731
    if step or not head.shape.taps:
        x = weights["hidden_proj.weight"] @ norm(state, "hidden_norm")
    else:
        parts = [normed(part) for part in np.split(state, 1 + len(head.shape.taps))]
        x = weights["fused_proj.weight"] @ (np.concatenate(parts) * weights["fused_norm.weight"])
    for name, token in zip(TOKENS, [text[-1], *copies(text)], strict=True):
        if token >= 0:
            x = x + weights[f"{name}_proj.weight"] @ norm(embedded(target, token), f"{name}_norm")
    y = norm(x, "mlp_norm")
    gate, up = weights["mlp.gate_proj.weight"] @ y, weights["mlp.up_proj.weight"] @ y
    x = x + weights["mlp.down_proj.weight"] @ (silu(gate) * up)
    return x, law(weights, x)


def law(weights, x):
    logits = weights["head.weight"] @ x
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


def embedded(target, token):
    """The target's row of a token, float64."""
    session = target.session(4, 4, taps=("embedding",))
    return session.forward([token]).taps["embedding"][0].astype(np.float64)


@example([0, 1, 0, 2, 0], [], 1)
@example([0, 1, 2, 0, 1, 3, 0, 1], [2, 0, 1], 2)
@example([0, 0, 1, 2], [], 1)
@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(0, 3), max_size=8), st.integers(1, 12))
def test_copies_are_what_followed_last_time(text, path, length):
    """Whether all of it is the text, or some lies on a path behind it; and what repeats is what stood before."""
    known, seen = Copies(COPIES), Repeats(length)
    known.append(text)
    assert known.after(path) == (copies(text + path) if text + path else [-1] * COPIES)
    for end in range(1, len(text) + 1):
        stood = any(text[begin : begin + length] == text[end - length : end] for begin in range(end - length))
        assert seen.append(text[end - 1 : end]) == (end >= length and stood)
    assert Repeats(length).append(text) == bool(text and len(text) >= length and stood)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tree", [None, Tree(1, 4)])
def test_guesses_are_the_heads_likeliest_tokens_one_after_another(isa, target, tree, form):
    """A chain of the short way, and a tree of one branch, of the long way: the same tokens, with the kinds of their shares."""
    drafter = HeadDrafter(random_head(NAME, form), least_probability=0.0)
    head = SavedHead.load(random_head(NAME, form))
    assert head.shape.recipe == form.split(",")[0] and bool(drafter.taps) == (form == TAPPED)
    run, rows = run_of(drafter, target, tree)
    for _ in range(2):  # the second time over the arrays of the first
        draft = run.propose(4)
        state, text = read_of(rows, drafter), [*PROMPT.tolist(), int(rows.tokens[-1])]
        for step, (guess, kind) in enumerate(zip(draft.tokens, draft.kinds, strict=True)):
            state, shares = guessed(head, state, target, text, step)
            text.append(int(head.d2t[shares.argmax()]))
            assert (int(guess), int(kind)) == (text[-1], int(kind_of(shares.max())))
        assert draft.is_chain and len(draft) == 4


@pytest.mark.parametrize("form", FORMS)
def test_the_short_way_and_the_long_one_may_take_turns(target, form):
    cell = HeadDrafter(random_head(NAME, form))._head.beside(target)
    width = SavedHead.load(random_head(NAME, form)).shape.width(0)
    states = np.random.default_rng(6).normal(0, 1, (3, width)).astype(np.float32)
    read, found = [[3, -1, -1], [4, 6, -1], [5, 7, 8]], []  # a token and its copies
    for _ in range(2):
        found.append([cell.likeliest(tokens, None if step else states[:1]) for step, tokens in enumerate(read)])
        following = states
        for step, tokens in enumerate(read):
            rows, following = cell.run(following, np.array([tokens] * 3, np.int32).T.copy(), step, False)
            assert found[-1][step][0] == rows.statistics.argmax[0]
    assert found[0] == found[1]


def test_a_level_may_have_more_rows_than_a_pass(target):
    """Of a static tree: below each of its nodes stands what stands there where it is the only one."""
    drafter, wide = HeadDrafter(random_head(NAME)), 40
    parents, ranks = np.array([*[-1] * wide, *range(wide)], np.int32), np.array([*range(wide), *[0] * wide], np.int32)
    whole = run_of(drafter, target, StaticTree(parents, ranks, 0.0))[0].propose(2 * wide).tokens
    for root in (0, 15, 16, wide - 1):
        alone = StaticTree(np.array([-1, 0], np.int32), np.array([root, 0], np.int32), 0.0)
        assert run_of(drafter, target, alone)[0].propose(2).tokens.tolist() == whole[[root, wide + root]].tolist()


def test_at_a_temperature_guesses_are_those_of_one_who_was_told_the_text_at_once(target):
    """Noise is that of a token's position, penalties are by the text before it."""
    sampler = Sampler(temperature=1.0, seed=3, repetition_penalty=1.3)
    drafter = HeadDrafter(random_head(NAME), least_probability=0.0)
    state, none = np.full((1, 64), 0.3, np.float32), np.empty(0, np.int32)

    def told(prompt, *parts):
        run = drafter.start(DraftRequest(prompt, target.session(60, 16), sampler, None))
        for part in parts:
            run.accept(part, none, {"hidden": np.repeat(state, len(part), axis=0)})
            draft = run.propose(4)
        return draft.tokens.tolist()

    whole = told(np.append(PROMPT, np.array([5, 9, 6, 2], np.int32)), [7])
    assert whole == told(PROMPT, [5], [9, 6], [2, 7]) == told(PROMPT, [5, 9, 6, 2, 7])
    assert whole != told(PROMPT[:-1], [5], [9, 6], [2, 7])


def test_a_chain_ends_where_it_is_hardly_right(target):
    run, _ = run_of(HeadDrafter(random_head(NAME), least_probability=1.0), target)
    assert len(run.propose(6)) == 1


def test_a_round_goes_on_from_the_state_behind_what_was_accepted(target):
    drafter = HeadDrafter(random_head(NAME), least_probability=0.0)
    run, rows = run_of(drafter, target)
    run.propose(3)
    state = np.full_like(rows.hidden[:1], 0.5)
    run.accept([7, 9], np.array([0], np.int32), {"hidden": np.concatenate([rows.hidden[-1:], state])})
    text = [*PROMPT.tolist(), int(rows.tokens[-1]), 7, 9]
    _, shares = guessed(SavedHead.load(random_head(NAME)), state[0].astype(np.float64), target, text, 0)
    assert run.propose(1).tokens[0] == SavedHead.load(random_head(NAME)).d2t[shares.argmax()]


@pytest.mark.parametrize("tree", [None, Tree(2, 9)])
def test_medusa_guesses_as_far_as_it_has_heads(target, tree):
    """And its trees are products of what each head says: whatever stands above, a level has the same tokens."""
    drafter = HeadDrafter(random_head(NAME, MEDUSA), least_probability=0.0)
    draft = run_of(drafter, target, tree)[0].propose(60)
    parents = draft.parents.tolist()
    depth = [0] * len(draft)
    for node, parent in enumerate(parents):
        depth[node] = depth[parent] + 1 if parent >= 0 else 0
    assert max(depth) == 3 and (draft.is_chain == (tree is None))
    for level in range(4):
        assert len({*draft.tokens[np.array(depth) == level].tolist()}) <= (1 if tree is None else 2)


def test_first_of_asks_the_next_where_one_has_no_guess(target):
    repeated = np.tile(np.arange(5, 9, dtype=np.int32), 4)
    both = FirstOf(PromptLookup(min_match=8), HeadDrafter(random_head(NAME), least_probability=0.0))
    assert both.reads_hidden and len(both.priors) == len(PromptLookup.priors) + len(SHARES) + 1
    session = target.session(60, 32)
    for prompt, first in ((repeated, True), (PROMPT, False)):
        session.truncate(0)
        rows = session.forward(prompt, read=Read(hidden=True, sampler=Sampler()))
        run = both.start(DraftRequest(prompt, session, Sampler()))
        run.accept([5] if first else rows.tokens[-1:].tolist(), np.empty(0, np.int32), {"hidden": rows.hidden})
        kinds = run.propose(3).kinds
        assert (kinds < len(PromptLookup.priors)).all() == first
    for drafters in ((), (PromptLookup(),), (PromptLookup(), 3), (PromptLookup, HeadDrafter)):
        with pytest.raises(ArgumentError, match="FirstOf needs two drafters or more"):
            FirstOf(*drafters)


def test_auto_weighs_a_heads_guesses_and_writes_plain_decodings_text(target):
    plain = generate(target.session(90, 16), PROMPT, 60)
    for form in FORMS:
        drafter = FirstOf(PromptLookup(min_match=4), HeadDrafter(random_head(NAME, form), least_probability=0.0))
        decoder = Auto(drafter=drafter, max_draft=5)
        text = generate(target.session(90, 16, taps=decoder.taps), PROMPT, 60, decoder=decoder)
        assert text.tokens == plain.tokens and text.stats.drafted > 0


def test_what_is_no_head_of_this_model_is_refused(target, tmp_path):
    write_checkpoint(tmp_path / "model", {"model_type": "llama"}, [])
    with pytest.raises(CheckpointError, match="is no draft head"):
        HeadDrafter(tmp_path / "model")
    head = head_for(target.plan, 16)
    narrow = replace(head.shape, vocab_size=head.shape.vocab_size - 1)
    SavedHead(narrow, np.arange(16, dtype=np.int32), head.tensors, head.priors, {}).save(tmp_path / "narrow")
    with pytest.raises(ArgumentError, match=f"the draft head is for a model of {narrow.vocab_size} tokens"):
        generate(target.session(30), PROMPT, 5, decoder=Speculative(HeadDrafter(tmp_path / "narrow")))
    tapped = HeadDrafter(random_head(NAME, TAPPED))
    with pytest.raises(
        ArgumentError, match=r"reads layers\.0, which this session does not give: make it with taps=drafter\.taps"
    ):
        generate(target.session(30), PROMPT, 5, decoder=Speculative(tapped))
    other = replace(
        head_for(target.plan, 16, TAPPED), shape=replace(head_for(target.plan, 16, TAPPED).shape, taps=("layers.90",))
    )
    other.save(tmp_path / "deeper")
    with pytest.raises(ArgumentError, match=r"reads layers\.90, which this model has not"):
        generate(target.session(30), PROMPT, 5, decoder=Speculative(HeadDrafter(tmp_path / "deeper")))
    with pytest.raises(UnsupportedError, match="a session over a function"):
        session = from_callable(lambda tokens: np.zeros((len(tokens), 50), np.float32), 50)
        generate(session, [1, 2], 5, decoder=Speculative(HeadDrafter(random_head(NAME))))


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_gives_back_what_was_saved_and_damage_is_named(target, tmp_path, form):
    head = head_for(target.plan, 20, form, seed=4)
    head.save(tmp_path / "head")
    found = SavedHead.load(tmp_path / "head")
    assert found.shape == head.shape and found.priors == head.priors and (found.d2t == head.d2t).all()
    assert all((found.tensors[name].data == tensor.data).all() for name, tensor in head.tensors.items())
    assert TABLE not in found.tensors and D2T not in found.tensors
    config = tmp_path / "head" / "config.json"
    said = json.loads(config.read_text())
    for changes, complaint in (
        ({"hidden_size": said["hidden_size"] + 32}, "a draft head of these sizes has the tensors"),
        ({"priors": said["priors"][1:]}, "priors must be"),
        ({"vocab_size": 3}, "d2t must be ascending tokens below 3"),
        ({"draft_vocab_size": 0}, "draft_vocab_size must be"),
        ({"recipe": "hydra"}, "recipe must be one of 'eagle', 'medusa'"),
        ({"heads": 0, "intermediate_size": 0}, "(heads|intermediate_size) must be"),
        *([] if form == MEDUSA else [({"taps": "layers.0"}, "taps must be a list of strings")]),
        *([] if form == MEDUSA else [({"taps": ["a", "b"]}, "a draft head of these sizes has the tensors")]),
    ):
        config.write_text(json.dumps(said | changes))
        with pytest.raises(CheckpointError, match=complaint):
            SavedHead.load(tmp_path / "head")
