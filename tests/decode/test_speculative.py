"""Speculative decoding: the text of plain decoding, or its law; the cache left right, whatever a draft holds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill.decode import (
    Autoregressive,
    CallableDrafter,
    Draft,
    Engine,
    HeadDrafter,
    LayerSkip,
    ModelDrafter,
    PromptLookup,
    Request,
    Speculative,
    StaticTree,
    Task,
    Tree,
    generate,
    speculative,
)  # fmt: skip
from fastdistill.decode.drafters import DraftRequest
from fastdistill.decode.drafters.drawing import Drawing
from fastdistill.decode.text import Text
from fastdistill.errors import ArgumentError, UnsupportedError
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.models import plan_for
from fastdistill.runtime import from_callable
from fastdistill.runtime.kv_cache import KVCache
from fastdistill.runtime.network import Network
from tests.draft_heads import TAPPED, random_head
from tests.small_models import config, network, tensors
from tests.strategies import ALPHABET, Setting, settings_of_models, token_lists
from tests.texts import events

SHAPE = StaticTree(np.array([-1, -1, 0, 0, 2], np.int32), np.array([0, 1, 0, 1, 0], np.int32), 0.0)

samplers = st.builds(
    Sampler,
    temperature=st.sampled_from([0.0, 0.0, 0.7, 1.5]),
    top_k=st.sampled_from([0, 0, 5]),
    top_p=st.sampled_from([1.0, 1.0, 0.8]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.3]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.4, -0.4]),
    presence_penalty=st.sampled_from([0.0, 0.0, 1.5]),
    no_repeat_ngram_size=st.sampled_from([0, 0, 0, 1, 2, 3]),
    logit_bias=st.sampled_from(
        [{}, {token: 4.0 for token in range(ALPHABET)}]
    ),  # few tokens: texts repeat, guesses hit
    seed=st.integers(0, 2**64 - 1),
)


def guessing(seed: int, vocab: int):
    """A drafter that makes any tree of any tokens."""

    def function(text, budget):
        random = np.random.default_rng([seed, len(text)])
        n = int(random.integers(0, budget + 3))
        tokens = random.integers(0, min(vocab, ALPHABET), n)
        return Draft(tokens, [int(random.integers(-1, row)) if row else -1 for row in range(n)])

    return CallableDrafter(function)


def knowing(text):
    """A drafter that knows how the text goes on, and adds a wrong token to it."""

    def function(so_far, budget):
        rest = text[len(so_far) : len(so_far) + budget - 1]
        return [*rest, 0] if rest else []

    return CallableDrafter(function)


def drafters(name: str, setting: Setting, tree: bool):
    small = network(setting.name, "q4", threads=1)
    return {
        "lookup": PromptLookup(min_match=1),
        "other model": ModelDrafter(network(setting.name, "q8", threads=1, seed=1)),
        "itself in q4": ModelDrafter(small, least_probability=0.0 if tree else 0.01),
        "layers": LayerSkip(1),
        "eagle": HeadDrafter(random_head(setting.name, TAPPED), least_probability=0.0),
        "medusa": HeadDrafter(random_head(setting.name, "medusa"), least_probability=0.0),
        "anything": guessing(7, setting.vocab),
    }[name]


NAMES = ["lookup", "other model", "itself in q4", "layers", "eagle", "medusa", "anything"]


def outcome(setting, prompt, count, sampler, decoder=None, capacity=96, ends=frozenset()):
    session = setting.session(capacity, taps=getattr(decoder, "taps", ()))
    result = generate(session, prompt, count, sampler, ends, decoder)
    return result.tokens, result.finish_reason, session.length, session.pending, session.tokens.tolist()


@given(seed=st.integers(0, 10**6), size=st.integers(1, 12), straight=st.booleans())
def test_some_guesses_of_a_draft_keep_what_belongs_to_them(seed, size, straight):
    random = np.random.default_rng(seed)
    parents = [number - 1 if straight else int(random.integers(-1, number)) for number in range(size)]
    kinds, tokens = random.integers(-1, 4, size).astype(np.int32), random.integers(0, 99, size)
    kept = list[int]()
    for number, parent in enumerate(parents):
        if (parent == -1 or parent in kept) and random.random() < 0.8:
            kept.append(number)
    some = Draft(tokens, parents, kinds=kinds).only(np.array(kept, np.int64))
    again = [-1 if parents[number] < 0 else kept.index(parents[number]) for number in kept]
    assert (some.tokens.tolist(), some.kinds.tolist()) == (tokens[kept].tolist(), kinds[kept].tolist())
    assert some.parents.tolist() == again and some.is_chain == (again == [*range(-1, len(kept) - 1)])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12)
@given(
    setting=settings_of_models, prompt=token_lists(1, 30), count=st.integers(1, 24), sampler=samplers,
    tree=st.sampled_from([None, Tree(3, 3), SHAPE]), max_draft=st.integers(1, 9), capacity=st.integers(30, 60),
    ends=st.frozensets(st.integers(0, ALPHABET - 1), max_size=1),
)  # fmt: skip
def test_the_text_is_that_of_plain_decoding(
    isa, name, setting, prompt, count, sampler, tree, max_draft, capacity, ends
):
    """To the last token: at the end of text, at max_tokens, where the session is full; and it leaves the same session."""
    if name == "layers":
        tree = None
    decoder = Speculative(drafters(name, setting, tree is not None), tree=tree, max_draft=max_draft)
    plain = outcome(setting, prompt, count, sampler, None, capacity, ends)
    assert outcome(setting, prompt, count, sampler, decoder, capacity, ends) == plain


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_right_guesses_are_taken_and_wrong_ones_cost_nothing_else(temperature):
    setting, sampler = Setting("plain", "q8"), Sampler(temperature=temperature, seed=5)
    prompt = [1, 2, 3]
    plain = generate(setting.session(), prompt, 25, sampler)
    ours = generate(
        setting.session(), prompt, 25, sampler, decoder=Speculative(knowing([*prompt, *plain.tokens]), max_draft=6)
    )
    assert ours.tokens == plain.tokens
    # 24 tokens after the first: of n guesses n - 1 are right, and one token more comes; the text's last is never guessed.
    assert [(round.drafted, round.accepted) for round in ours.rounds] == [(6, 5), (6, 5), (6, 5), (5, 4), (0, 0)]
    assert [round.refused for round in ours.rounds] == [(0,)] * 4 + [()]
    assert (ours.stats.forwards, ours.stats.drafted, ours.stats.accepted) == (5, 23, 19)


def test_the_same_model_as_drafter_is_always_right():
    """It draws with the target's own noise: sampled text too."""
    setting = Setting("biased", "q8")
    for sampler in (
        Sampler(),
        Sampler(temperature=1.3, top_p=0.9, seed=3, round=2**19),
        Sampler(temperature=0.8, repetition_penalty=1.2, frequency_penalty=0.3, presence_penalty=0.3),
    ):
        decoder = Speculative(ModelDrafter(network("biased", "q8")), max_draft=4)
        result = generate(setting.session(), [1, 2, 3], 21, sampler, decoder=decoder)
        assert result.stats.accepted == result.stats.drafted > 0 and result.stats.forwards <= 5
        tree = Speculative(ModelDrafter(network("biased", "q8")), tree=Tree(3, 4), max_draft=9)
        assert generate(setting.session(), [1, 2, 3], 21, sampler, decoder=tree).stats.tokens_per_forward > 3


def test_lookup_copies_what_the_prompt_holds():
    """A function that repeats its tokens with period 5: every guess is right, past the end of the match too."""

    def function(tokens):
        logits = np.zeros((len(tokens), 50), np.float32)
        logits[np.arange(len(tokens)), np.concatenate([np.full(4, 7), tokens])[: len(tokens)]] = 3.0
        return logits

    prompt = [3, 1, 4, 1, 5, 3, 1]
    plain = generate(from_callable(function, 50), prompt, 40)
    ours = generate(from_callable(function, 50), prompt, 40, decoder=Speculative(PromptLookup(), max_draft=12))
    assert ours.tokens == plain.tokens and ours.stats.tokens_per_forward >= 12


@pytest.mark.parametrize("tree", [None, Tree(2, 2)])
def test_several_texts_go_on_together(tree):
    setting = Setting("plain", "q8")
    prompts = [[1, 2, 1, 2, 1], [3, 4, 5], [0] * 9]

    def texts(decoder):
        made = []
        for number, prompt in enumerate(prompts):
            request = Request(np.array(prompt, np.int32), 0, Sampler(temperature=0.5, seed=number), max_tokens=15)
            made.append(Text(setting.session(), request, decoder, None))
        events(made)
        return [text.result.tokens for text in made]

    assert texts(Speculative(PromptLookup(min_match=1), tree=tree)) == texts(Autoregressive())


def test_taps_of_what_was_accepted_reach_the_drafter():
    setting, heard = Setting("plain", "f32"), []
    plain = generate(setting.session(), [1, 2, 3, 4], 12)
    whole = setting.session(taps=("layers.0",)).forward([1, 2, 3, 4, *plain.tokens]).taps["layers.0"]

    class Listening:
        def start(self, request):
            self.text = [1, 2, 3, 4]
            return self

        def propose(self, budget):
            right = [1, 2, 3, 4, *plain.tokens][len(self.text) : len(self.text) + 2]
            return Draft([9, *right], [-1, -1, 1][: len(right) + 1]).first(budget)

        def accept(self, tokens, path, taps):
            heard.append((len(path), taps["layers.0"].copy()))
            self.text += tokens

    generate(setting.session(taps=("layers.0",), max_rows=3), [1, 2, 3, 4], 12, decoder=Speculative(Listening()))
    every = np.concatenate([taps for _, taps in heard])  # the prompt's two parts, then round by round
    assert [len(taps) for _, taps in heard[:2]] == [3, 1] and sum(count for count, _ in heard) > 0
    np.testing.assert_array_equal(every, whole[: len(every)])
    assert len(every) >= 4 + 11


# ---- the same law, not the same text ----


def chain_law(vocab: int, seed: int):
    """Random laws after each text of up to two tokens, as a function to logits and as probabilities."""
    table = np.random.default_rng(seed).dirichlet(np.ones(vocab), size=(vocab + 1, vocab + 1)).astype(np.float32)

    def laws(tokens):
        before = np.concatenate([[vocab], tokens[:-1]])
        return table[before, tokens]

    return laws


@pytest.mark.parametrize(
    "rule, tree, drafter",
    [
        ("rejection", None, "model"), ("block", None, "model"), ("traversal", None, "model"), ("rejection", SHAPE, "model"),
        ("traversal", SHAPE, "model"), ("rejection", Tree(2, 2), "lookup"), ("coupled", None, "model"),
    ],
)  # fmt: skip
def test_rules_of_the_same_law_keep_it(rule, tree, drafter):
    """The first four tokens of 1000 texts, two rounds at least: chi-square over the 81 outcomes, at one in 10^6."""
    target, other = chain_law(3, 1), chain_law(3, 2)

    class Model:
        vocab_size = 3

        def session(self, capacity, max_rows):
            return from_callable(lambda tokens: np.log(other(tokens)), 3, capacity, max_rows)

    made = ModelDrafter(Model()) if drafter == "model" else PromptLookup(min_match=1)
    counts: Counter[tuple[int, ...]] = Counter()
    for seed in range(1000):
        session = from_callable(lambda tokens: np.log(target(tokens)), 3)
        decoder = Speculative(made, rule=rule, tree=tree, max_draft=2 if tree is None else 5)
        counts[tuple(generate(session, [0, 1, 0], 4, Sampler(temperature=1.0, seed=seed), decoder=decoder).tokens)] += 1
    statistic = 0.0
    for outcome in np.ndindex(3, 3, 3, 3):
        text = np.array([0, 1, 0, *outcome])
        p = np.prod(target(text)[np.arange(2, 6), outcome].astype(np.float64))
        statistic += (counts[outcome] - 1000 * p) ** 2 / (1000 * p)
    assert statistic < 160  # 80 degrees of freedom: beyond it once in 3e-7


@pytest.mark.parametrize("rule", ["rejection", "block", "traversal", "typical"])
def test_greedy_text_is_the_same_under_every_rule(rule):
    setting = Setting("plain", "q8")
    plain = generate(setting.session(), [1, 2, 3, 1, 2], 20)
    for drafter in (PromptLookup(min_match=1), ModelDrafter(network("plain", "q4")), LayerSkip(1)):
        ours = generate(setting.session(), [1, 2, 3, 1, 2], 20, decoder=Speculative(drafter, rule=rule))
        assert ours.tokens == plain.tokens


@pytest.mark.parametrize(
    "options", [dict(repetition_penalty=1.5), dict(frequency_penalty=2.0), dict(logit_bias={3: 9.0}, top_k=2)]
)
def test_laws_are_those_after_the_processors(options):
    """A sampler that leaves one token or two: only they may come, whatever is guessed; a penalty counts the guesses."""
    setting, sampler = Setting("plain", "q8"), Sampler(temperature=1e-3, seed=1, **options)
    plain = generate(setting.session(), [1, 2, 3], 20, sampler)
    for rule in ("rejection", "traversal"):
        decoder = Speculative(knowing([1, 2, 3, *plain.tokens]), rule=rule, max_draft=4)
        assert generate(setting.session(), [1, 2, 3], 20, sampler, decoder=decoder).tokens == plain.tokens


def constant(*logits):
    """A session whose every row has these logits."""
    return from_callable(lambda tokens: np.tile(np.array(logits, np.float32), (len(tokens), 1)), len(logits))


@pytest.mark.parametrize("rule", ["rejection", "traversal", "typical"])
def test_a_penalty_counts_the_prompt(rule):
    sampler, wrong = Sampler(repetition_penalty=1.5), CallableDrafter(lambda text, budget: [0])
    plain = generate(constant(3.0, 2.5, 2.2), [0], 4, sampler).tokens
    assert plain[:2] == [1, 2]  # not 0, which only the prompt holds
    assert generate(constant(3.0, 2.5, 2.2), [0], 4, sampler, decoder=Speculative(wrong, rule=rule)).tokens == plain


@pytest.mark.parametrize("rule", [None, "coupled", "rejection", "traversal", "typical"])
def test_frequency_and_presence_penalty_count_the_answer_alone(rule):
    """By hand: 3, 2.7 and 2.45 less 0.4 a time, and less 0.2 from the first time on; the prompt's many do not count."""
    sampler, wrong = Sampler(frequency_penalty=0.4, presence_penalty=0.2), CallableDrafter(lambda text, budget: [0, 1])
    decoder = None if rule is None else Speculative(wrong, rule=rule)
    text = generate(constant(3.0, 2.7, 2.45), [0, 0, 0, 2], 6, sampler, decoder=decoder).tokens
    assert text == [0, 1, 2, 0, 1, 0]


@pytest.mark.parametrize("rule", ["coupled", "rejection", "traversal"])
def test_a_guess_is_judged_by_the_mask_of_its_own_place(rule):
    """The first four tokens cannot be 0, which is the likeliest from then on; the bound lies within a draft."""
    early = np.array([0b110], np.uint32)
    decoder = Speculative(knowing([0, 1, 1, 1, 1, 0, 0, 0, 0]), rule=rule, max_draft=6)
    request = Request(np.zeros(1, np.int32), 0, Sampler(), allowed_early=early, min_tokens=4, max_tokens=8)
    text = Text(constant(3.0, 2.0, 1.0), request, decoder, None)
    assert "".join(event.piece for event in events([text])) == "" and text.result.tokens == [1, 1, 1, 1, 0, 0, 0, 0]


def test_the_same_seed_gives_the_same_text_and_another_another():
    setting, made = (
        Setting("biased", "q8"),
        Speculative(ModelDrafter(network("biased", "q4")), rule="rejection", tree=SHAPE),
    )

    def text(seed):
        return generate(setting.session(), [1, 2], 12, Sampler(temperature=1.5, seed=seed), decoder=made).tokens

    assert text(1) == text(1) != text(2)


# ---- another vocabulary ----


def test_a_token_map_leads_between_vocabularies():
    """The draft model is the target with its tokens in reverse, and lacks one: its guesses are as right as the target's own."""
    target, vocab = chain_law(6, 3), 6
    to_target = [5, 4, 3, 2, 1, -1]  # token 0 of the target is missing; the draft's own sixth is never proposed

    class Model:
        vocab_size = 6

        def session(self, capacity, max_rows):
            def function(tokens):
                laws = target(np.array(to_target)[tokens])
                back = laws[:, [5, 4, 3, 2, 1, 0]]
                back[:, 5] = 0.9  # the model's favourite, which the target does not know
                return np.log(back / back.sum(1, keepdims=True))

            return from_callable(function, vocab, capacity, max_rows)

    drafter = ModelDrafter(Model(), token_map=to_target)
    for sampler in (Sampler(), Sampler(temperature=1.0, seed=4)):
        for rule in ("coupled", "rejection"):
            session = from_callable(lambda tokens: np.log(target(tokens)), vocab)
            ours = generate(session, [1, 2, 0, 3], 30, sampler, decoder=Speculative(drafter, rule=rule, max_draft=3))
            if rule == "coupled" or not sampler.temperature:
                plain = generate(from_callable(lambda tokens: np.log(target(tokens)), vocab), [1, 2, 0, 3], 30, sampler)
                assert ours.tokens == plain.tokens
            assert ours.stats.accepted > 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_with_its_tokens_in_another_order_is_always_right(temperature):
    """It draws with the noise of the target's tokens, and biases them as the target does."""
    target, order = chain_law(9, 5), np.array([4, 0, 7, 1, 8, 2, 5, 3, 6])

    class Model:
        vocab_size = 9

        def session(self, capacity, max_rows):
            return from_callable(lambda tokens: np.log(target(order[tokens])[:, order]), 9, capacity, max_rows)

    sampler = Sampler(temperature=temperature, seed=2, logit_bias={3: 1.5, 6: -float("inf")})
    decoder = Speculative(ModelDrafter(Model(), token_map=order), max_draft=4)
    ours = generate(from_callable(lambda tokens: np.log(target(tokens)), 9), [1, 2, 0], 40, sampler, decoder=decoder)
    assert ours.stats.accepted == ours.stats.drafted > 20


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_lacks_tokens_of_the_prompt_penalises_the_same_answer(temperature):
    """Its prompt is shorter than the target's, and its answer begins there."""
    target, order = chain_law(9, 5), np.array([4, 7, 1, 8, 2, 5, 3, 6])

    class Model:
        vocab_size = 8

        def session(self, capacity, max_rows):
            return from_callable(lambda tokens: np.log(target(order[tokens])[:, order]), 8, capacity, max_rows)

    sampler = Sampler(temperature=temperature, seed=2, logit_bias={0: -float("inf")}, frequency_penalty=1.0)
    decoder = Speculative(ModelDrafter(Model(), token_map=order), max_draft=4)
    prompt = [0, 0, 1, 0, 0, 2, 0, 0, 5]
    ours = generate(from_callable(lambda tokens: np.log(target(tokens)), 9), prompt, 40, sampler, decoder=decoder)
    assert ours.stats.accepted == ours.stats.drafted > 20


def test_a_draft_model_that_knows_no_token_of_the_text_guesses_nothing():
    drafter = ModelDrafter(network("odd", "q8"), token_map=[299] + [-1] * 76)
    plain = generate(Setting("plain", "q8").session(), [1, 2, 3], 8)
    ours = generate(Setting("plain", "q8").session(), [1, 2, 3], 8, decoder=Speculative(drafter))
    assert ours.tokens == plain.tokens


@pytest.mark.parametrize("rule", ["coupled", "rejection"])
def test_a_tree_without_nodes_guesses_nothing(rule):
    empty = StaticTree(np.empty(0, np.int32), np.empty(0, np.int32), 1.0)
    decoder = Speculative(ModelDrafter(network("plain", "q4")), rule=rule, tree=empty)
    result = generate(Setting("plain", "q8").session(), [1, 2, 3], 8, decoder=decoder)
    assert result.stats.drafted == 0 and len(result.tokens) == 8


# ---- interrupts ----


def test_an_interrupt_leaves_a_session_that_goes_on():
    setting, calls = Setting("plain", "q8"), []

    def function(text, budget):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return [0] * budget

    session = setting.session()
    with pytest.raises(KeyboardInterrupt):
        generate(session, [1, 2, 3], 20, decoder=Speculative(CallableDrafter(function)))
    assert generate(session, [1, 2, 3], 20).tokens == generate(setting.session(), [1, 2, 3], 20).tokens


@pytest.mark.parametrize(
    "problem", [KeyboardInterrupt(), ValueError("no guess")], ids=lambda problem: type(problem).__name__
)
@pytest.mark.parametrize("call", [1, 2, 7])
def test_what_goes_wrong_within_rounds_that_go_on_takes_no_token_along(monkeypatch, problem, call):
    """After an interrupt the text goes on as it would have; after an error it has what came before."""
    monkeypatch.setattr(speculative, "SPELL", 1e9)
    setting, calls, prompt = Setting("plain", "q8"), [], np.array([1, 2, 3], np.int32)

    def function(text, budget):
        calls.append(1)
        if len(calls) == call:
            raise problem
        return [0] * min(budget, 3)

    class Apart(CallableDrafter):
        leaves_session = True

    def begin(_):
        request = Request(prompt, 0, Sampler(), max_tokens=20)
        return Text(setting.session(), request, Speculative(Apart(function)), None)

    plain = generate(setting.session(), prompt, 20).tokens
    engine, task = Engine(1), Task(prompt, begin)
    engine.submit(task)
    if isinstance(problem, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            engine.run()
    engine.run()
    found = task.result
    if isinstance(problem, KeyboardInterrupt):
        assert found.tokens == plain and sum(round.tokens for round in found.rounds) == 19
    else:
        assert found.error is problem and len(found.tokens) >= call and found.tokens == plain[: len(found.tokens)]


def test_rounds_of_chains_go_on_to_trees_and_back(monkeypatch):
    """A tree is no chain that a forward goes on with: it is proposed once all the same, and checked by the next."""
    monkeypatch.setattr(speculative, "SPELL", 1e9)
    setting = Setting("plain", "f32")
    drafter = ModelDrafter(network("plain", "f32", threads=1))
    for temperature in (0.0, 0.9):
        plain, drafted = (
            generate(setting.session(), [1, 2, 3], 30, Sampler(temperature), decoder=decoder)
            for decoder in (None, Speculative(drafter, tree=Tree(2, 2), max_draft=2))
        )
        assert drafted.tokens == plain.tokens and drafted.stats.drafted > 0


def test_rounds_that_go_on_hold_no_more_than_a_session_says(monkeypatch):
    """A layer with a window keeps its pages and those of one forward's rows, whatever there is room for."""
    monkeypatch.setattr(speculative, "SPELL", 1e9)
    plan = plan_for(config("plain", 1, model_type="mistral", sliding_window=5))
    session = Network(plan, tensors(plan), threads=1).session(500, 16)
    text = generate(session, [1, 2, 3], 90, decoder=Speculative(PromptLookup(min_match=1)))
    assert len(text.tokens) == 90 and session.nbytes <= KVCache.most_bytes(plan, 500, 16, session.cache_format)


# ---- what is refused ----


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: Speculative(PromptLookup), ArgumentError, "drafter must be"),
        (lambda: Speculative(PromptLookup(), rule="greedy"), ArgumentError, "rule must be one of coupled"),
        (lambda: Speculative(PromptLookup(), tree=3), ArgumentError, "tree must be"),
        (lambda: Speculative(PromptLookup(), rule="block", tree=Tree(2, 2)), ArgumentError, "chains"),
        (lambda: Speculative(PromptLookup(), lenience=("linear", 0.5)), ArgumentError, "lenience belongs"),
        (lambda: Speculative(PromptLookup(), max_draft=0), ArgumentError, "max_draft"),
        (lambda: Speculative(PromptLookup(), rule="typical", epsilon=-1), ArgumentError, "epsilon"),
        (lambda: Speculative(PromptLookup(), rule="rejection", lenience=("cubic", 0.5)), ArgumentError, "lenience"),
        (lambda: Draft([1, 2], kinds=[1]), ArgumentError, "kinds"),
        (lambda: PromptLookup(max_match=0), ArgumentError, "max_match"),
        (lambda: PromptLookup(min_match=0), ArgumentError, "min_match"),
        (lambda: PromptLookup(max_match=2, min_match=3), ArgumentError, "min_match"),
        (lambda: LayerSkip(0), ArgumentError, "layers"),
        (lambda: ModelDrafter("smollm2"), ArgumentError, "model must be"),
        (lambda: CallableDrafter([1, 2]), ArgumentError, "callable"),
        (lambda: Draft([1, 2], [-1, 1]), ArgumentError, r"parents\[1\]"),
        (lambda: Draft([1, 2], [-1]), ArgumentError, "shape"),
        (lambda: Draft([-1]), ArgumentError, "tokens"),
        (lambda: Draft([1], laws=np.ones((1, 4), np.float32)), ArgumentError, "law_rows"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()


class Nothing:
    def start(self, request):
        return self

    def propose(self, budget):
        return None

    def accept(self, tokens, path, taps):
        pass


@pytest.mark.parametrize(
    "drafter, tree, error, text",
    [
        (LayerSkip(2), None, ArgumentError, "fewer than the model's 2"),
        (LayerSkip(1), Tree(2, 2), UnsupportedError, "chains"),
        (ModelDrafter(network("odd", "q8")), None, ArgumentError, "77 tokens, the target 300"),
        (ModelDrafter(network("odd", "q8"), token_map=[0] * 77), None, ArgumentError, "at most once"),
        (ModelDrafter(network("odd", "q8"), token_map=[0]), None, ArgumentError, "one entry a draft token, 77"),
        (CallableDrafter(lambda text, budget: [300]), None, ArgumentError, "token 300, the model has 300"),
        (CallableDrafter(lambda text, budget: "abc"), None, ArgumentError, "a draft's tokens"),
        (Nothing(), None, ArgumentError, "must propose a Draft, got None"),
    ],
)
def test_drafters_that_do_not_fit_the_target_are_refused(drafter, tree, error, text):
    session = Setting("plain", "q8").session()
    with pytest.raises(error, match=text):
        generate(session, [1, 2], 9, decoder=Speculative(drafter, tree=tree))
    assert generate(session, [1, 2], 9).tokens == generate(Setting("plain", "q8").session(), [1, 2], 9).tokens


def test_a_session_over_a_function_has_no_layers_to_skip():
    with pytest.raises(UnsupportedError, match="no layers"):
        generate(
            from_callable(lambda tokens: np.zeros((len(tokens), 4), np.float32), 4),
            [1],
            9,
            decoder=Speculative(LayerSkip(1)),
        )


@pytest.mark.parametrize("settings", [dict(rule="block"), dict(rule="rejection", lenience=("linear", 0.5))])
def test_a_drafter_that_makes_trees_is_no_drafter_of_chains(settings):
    decoder = Speculative(CallableDrafter(lambda text, budget: Draft([1, 2], [-1, -1])), **settings)
    with pytest.raises(ArgumentError, match="guessed a tree"):
        generate(Setting("plain", "q8").session(), [1, 2], 9, Sampler(temperature=1.0), decoder=decoder)


def test_rounds_and_siblings_draw_apart():
    """The same position again: after a refusal the noise that led to it must not come back."""
    session = constant(*np.zeros(50))
    drawing = Drawing(DraftRequest(np.zeros(1, np.int32), session, Sampler(temperature=1.0), sampled=True))
    rows, keys = session.forward([0], read=drawing.read(1)), []
    for _ in range(2):
        drawing.begin_round()
        keys += [drawing.ranked(rows, [4], [index], [np.zeros(1, np.int32)])[0][0] for index in (0, 1)]
    assert len(np.unique(keys, axis=0)) == 4


def test_a_round_that_the_text_ends_in_names_no_refused_guess():
    decoder = Speculative(CallableDrafter(lambda text, budget: [0, 0, 0, 1][:budget]), max_draft=4)
    texts = [generate(constant(3.0, 1.0), [1], 20, end_tokens=ends, decoder=decoder) for ends in ((), frozenset({0}))]
    assert texts[0].rounds[0].refused == (1,) and texts[1].rounds == []
    step = from_callable(lambda t: np.eye(6, dtype=np.float32)[np.minimum(t + 1, 5)], 6)
    ours = generate(
        step, [0], 20, end_tokens=frozenset({3}), decoder=Speculative(knowing([0, 1, 2, 3, 4, 5]), max_draft=5)
    )
    assert ours.tokens == [1, 2, 3] and [(round.accepted, round.refused) for round in ours.rounds] == [(2, ())]


@pytest.mark.parametrize(
    "changes, least", [({}, 3), ({"max_match": 2}, 2), ({"max_match": 1}, 1), ({"max_match": 5, "min_match": 4}, 4)]
)
def test_the_shortest_match_fits_the_longest(changes, least):
    for length in range(1, 6):
        repeated = [*range(length), 49, 48, *range(length)]
        run = PromptLookup(**changes).start(DraftRequest(np.array(repeated, np.int32), None, Sampler()))
        assert run.propose(1).tokens.tolist() == ([49] if length >= least else [])
