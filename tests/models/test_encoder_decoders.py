"""Models with an encoder, as users have them: a prompt is what is read, and every decoder writes the text of plain decoding."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

import fastdistill as fd
from fastdistill.checkpoint import Config, Target, Tensor, open_checkpoint, target_of, write_checkpoint
from fastdistill.checkpoint.config import said_of_texts
from fastdistill.decode import Auto, Autoregressive, Jacobi, LayerSkip, Lookahead, PromptLookup, Speculative, generate
from fastdistill.decode.drafters.draft import DraftRequest
from fastdistill.decode.jacobi import initial
from fastdistill.errors import ArgumentError, CapacityError, CheckpointError, PartialError, UnsupportedError
from fastdistill.kernels import NgramPool
from fastdistill.kernels.sample.sample import Sampler
from fastdistill.models import plan_for, quantize_folder
from fastdistill.models.encoder_decoder import sinusoids
from fastdistill.runtime.source import encode
from fastdistill.tasks import search_of
from fastdistill.train.differentiate import differentiate
from tests.families import SOURCED, family_config, network
from tests.goldens.make_families import text, write_folder
from tests.small_models import config as small_config
from tests.small_models import tensors
from tests.text.tokenizers_made_here import byte_level

TOKENIZER = {"tokenizer.json": json.dumps(byte_level()).encode()}  # token 0 is special, 1..256 are the bytes
VOCAB = 300
PROMPT = "the cat and the dog and the cat sat"
DECODERS = {
    "prompt lookup": Speculative(PromptLookup(min_match=1)),
    "prompt lookup, a tree": Speculative(PromptLookup(min_match=1), tree=fd.decode.Tree(2)),
    "layer skip": Speculative(LayerSkip(1)),
    "rejection": Speculative(PromptLookup(min_match=1), rule="rejection"),
    "jacobi": Jacobi(),
    "lookahead": Lookahead(),
    "auto": Auto(),
}


def write(folder, name: str, generation: dict | None = None, **changes):
    """A folder of a case that reads and writes bytes."""
    sizes = {"vocab_size": VOCAB, "max_position_embeddings": 256}
    config = family_config(name, **{key: value for key, value in sizes.items() if key in SOURCED[name][1]} | changes)
    said = {} if generation is None else {"generation_config.json": json.dumps(generation).encode()}
    write_checkpoint(folder, config.raw, tensors(plan_for(config)).values(), TOKENIZER | said)
    return folder


@pytest.fixture(scope="module", params=SOURCED)
def model(request, tmp_path_factory):
    return fd.load(write(tmp_path_factory.mktemp("models") / "model", request.param), threads=2)


def greedy(model, source: list[int], count: int) -> list[int]:
    """What each row's likeliest token makes of a source, by the whole text's logits each time."""
    written, target = [model.target.start], model.target
    for number in range(count):
        logits = model.logits(written, source)[-1]
        logits[list(target.banned)] = -np.inf
        given = target.first if number == 0 else None
        given = target.last if given is None and number == count - 1 else given
        written.append(int(logits.argmax()) if given is None else given)
    return written[1:]


def test_a_prompt_is_read_and_what_is_written_begins_as_the_config_says(isa, model):
    source = model.tokenizer.encode(PROMPT)
    ends = model.end_tokens
    model.end_tokens = frozenset()
    try:
        want = greedy(model, source, 20)
        for prompt in (PROMPT, source):
            written = model.generate(prompt, max_tokens=20)
            assert written.tokens == want and written.finish_reason == "length"
            assert written.text == model.tokenizer.decode(want)
            assert (written.stats.prompt_tokens, written.stats.reused_tokens) == (len(source), 0)
            assert written.stats.prefill_seconds > 0
        pieces = list(model.stream(PROMPT, max_tokens=20))
        assert "".join(pieces) == written.text
        assert model.generate(PROMPT, max_tokens=1).tokens == want[:1] or model.target.last is not None
    finally:
        model.end_tokens = ends


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_every_lossless_decoder_writes_the_text_of_plain_decoding(model, decoder, temperature):
    if decoder == "rejection" and temperature:
        pytest.skip("keeps the law, not the text")
    how = dict(max_tokens=30, temperature=temperature, seed=3)
    for prompt in (PROMPT, "aaaa", "x"):
        want = model.generate(prompt, decoder=Autoregressive(), **how)
        got = model.generate(prompt, decoder=DECODERS[decoder], **how)
        assert got.tokens == want.tokens and got.finish_reason == want.finish_reason


def test_guesses_come_from_the_source():
    session = network("bart").session(32)
    session.read_source([5, 2, 9, 8, 7, 4, 9])
    request = DraftRequest(np.array([2], np.int32), session, Sampler())
    guessed = PromptLookup(min_match=1).start(request)
    assert guessed.propose(3).tokens.tolist() == [9, 8, 7]
    guessed.accept([9, 8], np.empty(0, np.int32), {})
    assert guessed.propose(3).tokens.tolist() == [7, 4, 9]
    assert set(initial("prompt", 0, 200, request, 0).tolist()) == {5, 2, 9, 8, 7, 4}
    pool = NgramPool(3, per_key=4)
    written = generate(session, [2], 2, decoder=Lookahead(ngram=3, pool=pool), end_tokens=frozenset())
    assert len(written.tokens) == 2 and [9, 8] in pool.lookup(2, 8).tolist()


def test_prompts_of_a_list_are_each_what_they_are_alone(isa, model):
    prompts = [PROMPT, "x", "another text, and a longer one than the others are " * 3, PROMPT]
    for how in (dict(), dict(temperature=0.9, seed=2), dict(decoder=Speculative(PromptLookup(min_match=1)))):
        together = model.generate(prompts, max_tokens=25, **how)
        assert [each.tokens for each in together] == [
            model.generate(prompt, max_tokens=25, **how).tokens for prompt in prompts
        ]


def test_texts_of_one_prompt_are_read_once_and_those_of_several_together(model, monkeypatch):
    passes = []

    def counted(network, sources, cache_format):
        passes.append([len(tokens) for tokens in sources])
        return encode(network, sources, cache_format)

    monkeypatch.setattr("fastdistill.runtime.network.encode", counted)
    several = model.generate([3, 4, 5], n=4, temperature=1.2, seed=1, max_tokens=12)
    assert passes == [[3]] and len({tuple(each.tokens) for each in several}) > 1
    assert several[0].tokens == model.generate([3, 4, 5], temperature=1.2, seed=1, max_tokens=12).tokens
    passes.clear()
    lengths = [100, 28, 1, 127, 2, 129, 5]  # at most 128 rows a pass, where a source has no more
    prompts = [[number + 1] * length for number, length in enumerate(lengths)]
    together = model.generate(prompts, max_tokens=3)
    assert passes == [[100, 28], [1, 127], [2], [129], [5]]
    assert [each.tokens for each in together] == [model.generate(prompt, max_tokens=3).tokens for prompt in prompts]


def test_a_session_keeps_its_source_while_the_prompt_is_the_same(model):
    session = model.session(64)
    first = model.generate(PROMPT, session=session, max_tokens=10)
    again = model.generate(PROMPT, session=session, max_tokens=10)
    other = model.generate("another one", session=session, max_tokens=10)
    assert first.tokens == again.tokens == model.generate(PROMPT, max_tokens=10).tokens
    assert other.tokens == model.generate("another one", max_tokens=10).tokens
    assert (first.stats.reused_tokens, other.stats.reused_tokens) == (0, 0)
    assert again.stats.reused_tokens == again.stats.prompt_tokens == len(model.tokenizer.encode(PROMPT))


def test_a_prompt_longer_than_the_encoder_reads_fails_alone(model):
    most = model.plan.source_positions
    with pytest.raises(
        CapacityError, match=f"the source has {most + 1} tokens, more than the {most} .*{model.plan.positions_source}"
    ):
        model.generate([1] * (most + 1))
    with pytest.raises(PartialError) as failed:
        model.generate([[1] * (most + 1), PROMPT], max_tokens=4)
    refused, written = failed.value.results
    assert isinstance(refused.error, CapacityError) and written.tokens == model.generate(PROMPT, max_tokens=4).tokens
    with pytest.raises(ArgumentError, match="prompt is empty"):
        model.generate("" if not model.tokenizer.encode("") else [])


def test_a_text_ends_where_the_decoder_has_no_more_positions(tmp_path):
    model = fd.load(
        write(tmp_path / "model", "bart", max_position_embeddings=24, eos_token_id=None, forced_eos_token_id=None)
    )
    written = model.generate([5, 6, 7], max_tokens=100)
    assert written.finish_reason == "capacity" and len(written.tokens) == 24
    assert model.generate([5, 6, 7], max_tokens=100, decoder=Jacobi()).tokens == written.tokens


def test_what_is_asked_without_a_source_says_what_it_needs(model):
    with pytest.raises(ArgumentError, match="source must be given"):
        model.logits([model.target.start])
    with pytest.raises(UnsupportedError, match=r"score needs a model of texts alone.*logits\(ids, source"):
        model.score("a text")
    assert model.logits([model.target.start, 5], [1, 2]).shape == (2, VOCAB)
    assert isinstance(repr(model), str)


def test_beams_of_a_source_are_what_each_is_alone(isa, model):
    """Forks of one session have its source; a session that is given holds it afterwards."""
    search, session = fd.BeamSearch(3), model.session(64)
    alone = [model.generate(prompt, max_tokens=8, decoder=search) for prompt in (PROMPT, "x")]
    for got, want in zip(model.generate([PROMPT, "x"], max_tokens=8, decoder=search), alone, strict=True):
        assert (got.tokens, got.score) == (want.tokens, want.score)
    assert model.generate(PROMPT, max_tokens=8, decoder=search, session=session).tokens == alone[0].tokens
    assert session.source.tolist() == model.tokenizer.encode(PROMPT)
    several = model.generate(PROMPT, n=3, max_tokens=8, decoder=search)
    assert several[0].tokens == alone[0].tokens and several[0].score >= several[1].score >= several[2].score
    if model.target.last is not None:
        assert all(len(each.tokens) < 8 or each.tokens[-1] == model.target.last for each in several)


def test_costs_are_measured_over_a_source(model):
    assert all(seconds > 0 for seconds in model.measure_costs().seconds[0])


# ---- how texts begin and end ----


@pytest.mark.parametrize(
    ("config", "generation", "want"),
    [
        (dict(), {}, Target(2)),
        (dict(forced_bos_token_id=0, forced_eos_token_id=2), {}, Target(2, 0, 2)),
        (dict(forced_eos_token_id=[5, 2]), {}, Target(2, None, 5)),
        (dict(forced_bos_token_id=0, forced_eos_token_id=2), {"num_beams": 4}, Target(2)),
        (dict(), dict(decoder_start_token_id=7, forced_bos_token_id=3), Target(7, 3)),
        (dict(no_repeat_ngram_size=3), {}, Target(2, no_repeat_ngram_size=3)),
        (dict(no_repeat_ngram_size=3), dict(no_repeat_ngram_size=2), Target(2, no_repeat_ngram_size=2)),
        (dict(bad_words_ids=[[82], [3], [82]]), {}, Target(2, banned=(3, 82))),
        (dict(eos_token_id=7), dict(bad_words_ids=[[7], [3], [4]], forced_bos_token_id=4), Target(2, 4, banned=(3,))),
    ],
)
def test_how_texts_begin_and_end_is_as_both_files_say(config, generation, want):
    assert target_of(Config(config), generation, 2, 83) == want


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        (dict(no_repeat_ngram_size=-1), "no_repeat_ngram_size must be an integer from 0"),
        (dict(forced_bos_token_id=83), "forced_bos_token_id must be an integer from 0 to 82, found 83"),
        (dict(forced_eos_token_id="</s>"), "forced_eos_token_id must be an integer"),
        (dict(decoder_start_token_id=-1), "decoder_start_token_id must be an integer"),
        (dict(bad_words_ids=[3]), "bad_words_ids must be a list of lists of tokens, from 0 to 82"),
        (dict(bad_words_ids=[[i] for i in range(83)]), "bad_words_ids must be fewer than all 83 tokens"),
    ],
)
def test_what_cannot_be_is_refused(generation, message):
    with pytest.raises(CheckpointError, match=message):
        target_of(Config({}), generation, 2, 83)


def test_longer_words_are_named_once():
    with pytest.warns(UserWarning, match="bad_words_ids of more than one token are not kept out of texts: 1 of 2"):
        assert target_of(Config({}), dict(bad_words_ids=[[3], [4, 5]]), 2, 83).banned == (3,)


@pytest.mark.parametrize("decoder", [None, *DECODERS])
def test_a_first_and_a_last_token_that_are_given(tmp_path, decoder):
    free = fd.load(write(tmp_path / "free", "t5", {"eos_token_id": []}))
    often = sorted(
        {*free.generate(PROMPT, max_tokens=30).tokens, *free.generate(PROMPT, seed=1, temperature=2.0).tokens}
    )
    said = dict(forced_bos_token_id=70, forced_eos_token_id=71, bad_words_ids=[[token] for token in often])
    model = fd.load(write(tmp_path / "model", "t5", said))
    how = {} if decoder is None else dict(decoder=DECODERS[decoder])
    for count in (1, 2, 3, 30):
        written = model.generate(PROMPT, max_tokens=count, **how)
        assert written.tokens[0] == 70 and written.finish_reason == "length"
        assert count == 1 or written.tokens[-1] == 71
        assert not {*often} & {*written.tokens[1:-1]}
        assert written.tokens == greedy(model, model.tokenizer.encode(PROMPT), count)
        assert 71 not in written.tokens[:-1] or count > 3
    for found in model.generate(PROMPT, n=3, max_tokens=12, decoder=fd.BeamSearch(3)):
        assert found.tokens[0] == 70 and not {*model.target.banned} & {*found.tokens}
    ended = model.generate(PROMPT, max_tokens=3, stop_token_ids=[71], **how)
    assert ended.tokens[-1] == 71 and ended.finish_reason == "length"  # it had no choice


BEAMS = dict(num_beams=3, length_penalty=0.5, early_stopping=True)


@pytest.mark.parametrize(
    ("config", "generation", "want"),
    [
        ({}, {}, None),
        ({}, dict(num_beams=1, length_penalty="none"), None),
        ({}, dict(num_beams=4), fd.BeamSearch(4)),
        ({}, BEAMS, fd.BeamSearch(3, 0.5, True)),
        (BEAMS, {}, fd.BeamSearch(3, 0.5, True)),
        (BEAMS, dict(eos_token_id=2), None),  # which says all that there is to say
        ({}, dict(num_beams=2, early_stopping="never", length_penalty=-2), fd.BeamSearch(2, -2.0, "never")),
        ({}, dict(num_beams=2, early_stopping=None, length_penalty=None), fd.BeamSearch(2)),
        ({}, dict(num_beams=0), "num_beams must be an integer from 1 to 1024, found 0"),
        ({}, dict(num_beams=2, length_penalty=31), "length_penalty must be a finite number from -30 to 30, found 31"),
        ({}, dict(num_beams=2, early_stopping=1), 'early_stopping must be true, false or "never", found 1'),
    ],
)
def test_a_folder_asks_for_beams(config, generation, want):
    said = said_of_texts(Config(config), generation)
    if isinstance(want, str):
        with pytest.raises(CheckpointError, match=want):
            search_of(said)
    else:
        assert search_of(said) == want


@pytest.fixture(scope="module")
def searching(tmp_path_factory):
    return fd.load(write(tmp_path_factory.mktemp("searching") / "model", "bart", BEAMS), threads=2)


def test_without_a_decoder_a_model_searches_as_its_folder_asks(searching):
    search, how = fd.BeamSearch(3, 0.5, True), dict(max_tokens=8)
    assert searching.search == search
    want = searching.generate(PROMPT, decoder=search, **how)
    assert searching.generate(PROMPT, decoder=Autoregressive(), **how).score is None
    for got in (searching.generate(PROMPT, **how), *searching.generate([PROMPT, PROMPT], **how)):
        assert (got.tokens, got.score, len(got.runners_up)) == (want.tokens, want.score, 2)
    assert [str(piece) for piece in searching.stream(PROMPT, **how)] == [want.text]
    best = searching.generate(PROMPT, n=3, **how)
    assert [each.tokens for each in best] == [each.tokens for each in (want, *want.runners_up)]
    assert searching.generate(PROMPT, session=searching.session(64), n=2, **how)[0].tokens == want.tokens
    with pytest.raises(ArgumentError, match="n=4 texts are more than the num_beams=3"):
        searching.generate(PROMPT, n=4, **how)


@pytest.mark.parametrize("drawn", [dict(temperature=0.7), dict(top_k=4), dict(top_p=0.5), dict(min_p=0.1)])
def test_who_has_tokens_drawn_asks_for_no_search(searching, drawn):
    got, want = (searching.generate(PROMPT, max_tokens=8, decoder=how, **drawn) for how in (None, Autoregressive()))
    assert got.tokens == want.tokens and got.score is None
    assert len(searching.generate(PROMPT, n=4, max_tokens=2, temperature=1.0)) == 4
    with pytest.raises(ArgumentError, match=f"beam search draws nothing: leave {next(iter(drawn))} at"):
        searching.generate(PROMPT, decoder=searching.search, **drawn)


@pytest.mark.parametrize("decoder", [*DECODERS, "beams"])
def test_no_run_comes_twice_where_the_folder_says_so_whichever_decoder_writes(tmp_path, decoder):
    """The run's own first token, the start, counts; what has to come last comes all the same."""
    said = dict(no_repeat_ngram_size=2, eos_token_id=[], forced_eos_token_id=70)
    model = fd.load(write(tmp_path / "model", "bart", said))
    count, free = 40, model.generate(PROMPT, max_tokens=40, no_repeat_ngram_size=0).tokens
    assert len({*itertools.pairwise(free)}) < len(free) - 2
    for size, asked in ((2, {}), (1, dict(no_repeat_ngram_size=1)), (3, dict(no_repeat_ngram_size=3))):
        text = model.generate(PROMPT, max_tokens=count, **asked).tokens
        if decoder == "beams":
            text = model.generate(PROMPT, max_tokens=count, decoder=fd.BeamSearch(3), **asked).tokens
        runs = [*zip(*([model.target.start, *text[:-1]][at:] for at in range(size)), strict=False)]
        assert len({*runs}) == len(runs) == count + 1 - size and text[-1] == 70
        if decoder != "beams":
            for more in (dict(), dict(temperature=1.0, seed=5)):
                plain = model.generate(PROMPT, max_tokens=count, **asked, **more).tokens
                got = model.generate(PROMPT, max_tokens=count, decoder=DECODERS[decoder], **asked, **more).tokens
                assert got == plain or (decoder == "rejection" and more)


def test_a_model_of_texts_alone_is_not_searched_by_itself(tmp_path):
    config = small_config()
    said = {"generation_config.json": json.dumps(BEAMS).encode()}
    write_checkpoint(tmp_path / "plain", config.raw, tensors(plan_for(config)).values(), said)
    model = fd.load(tmp_path / "plain")
    assert model.search is None and model.generate([1, 2], max_tokens=2).score is None


# ---- what folders may be like ----


def stored(folder) -> tuple[dict, list[Tensor]]:
    with open_checkpoint(folder) as checkpoint:
        tensors = [
            Tensor(name, each.format, each.shape, *each.parts.values()) for name, each in checkpoint.tensors.items()
        ]
        return dict(checkpoint.config.raw), tensors


def test_files_of_a_model_without_its_head_have_shorter_names_and_no_bias(tmp_path):
    """BART base on the Hub: `shared.weight`, and no `final_logits_bias`."""
    write_folder(tmp_path / "whole", family_config("bart"))
    config, whole = stored(tmp_path / "whole")
    shorter = [
        Tensor(each.name.removeprefix("model."), each.format, each.shape, *each.parts.values())
        for each in whole
        if each.name != "final_logits_bias"
    ]
    write_checkpoint(tmp_path / "short", config, shorter)
    words, source = text(83)[:9], text(83)[:5]
    bias = next(each for each in whole if each.name == "final_logits_bias").to_float32()
    want = fd.load(tmp_path / "whole").logits(words, source) - bias
    np.testing.assert_allclose(fd.load(tmp_path / "short").logits(words, source), want, atol=1e-5)
    quantize_folder(tmp_path / "short", tmp_path / "q8", "q8")
    assert fd.load(tmp_path / "q8").logits(words, source).shape == want.shape


def test_other_names_of_the_embedding_have_to_hold_the_same(tmp_path):
    write_folder(tmp_path / "whole", family_config("bart"))
    config, whole = stored(tmp_path / "whole")
    shared = next(each for each in whole if each.name == "model.shared.weight")
    names = ["lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"]
    same = [Tensor(name, "f32", shared.shape, shared.data) for name in names]
    write_checkpoint(tmp_path / "same", config, [*whole, *same])
    want = fd.load(tmp_path / "whole").logits([1, 2], [3])
    np.testing.assert_array_equal(fd.load(tmp_path / "same").logits([1, 2], [3]), want)
    for name in names:
        write_checkpoint(tmp_path / name, config, [*whole, Tensor(name, "f32", shared.shape, shared.data + 1)])
        with pytest.raises(CheckpointError, match=f"it holds another {name}"):
            fd.load(tmp_path / name)


@pytest.mark.parametrize("name", ["t5", "t5, gated, a head of its own", "mt5", "umt5"])
def test_a_head_is_the_stored_one_or_the_embedding(tmp_path, name):
    """What scales logits is another matter: files say of it what they say of a tied head."""
    write_folder(tmp_path / "model", family_config(name))
    config, whole = stored(tmp_path / "model")
    without = [each for each in whole if each.name != "lm_head.weight"]
    shared = next(each for each in without if each.name == "shared.weight")
    head = Tensor("lm_head.weight", "f32", shared.shape, shared.data[::-1].copy())
    write_checkpoint(tmp_path / "without", config, without)
    write_checkpoint(tmp_path / "with", config, [*without, head])
    tied = fd.load(tmp_path / "without")
    if name in ("t5", "umt5"):
        with pytest.warns(UserWarning, match="it holds another lm_head.weight, which is used"):
            apart = fd.load(tmp_path / "with")
    else:
        apart = fd.load(tmp_path / "with")
    assert "lm_head.weight" in apart.plan.weights and "lm_head.weight" not in tied.plan.weights
    np.testing.assert_array_equal(apart.logits([0, 5], [1, 2]), tied.logits([0, 5], [1, 2])[:, ::-1])
    hidden = tied.session(8)
    hidden.read_source([1, 2])
    found = hidden.forward([0, 5], read=fd.Read(hidden=True, logits=True))
    scale = 44**-0.5 if name in ("t5", "umt5") else 1
    np.testing.assert_allclose(found.logits, scale * found.hidden @ shared.data.T, atol=1e-4)


def test_stored_sinusoids_are_those_of_the_config_or_named(tmp_path):
    write_folder(tmp_path / "without", family_config("marian"))
    config, without = stored(tmp_path / "without")
    name, table = "model.encoder.embed_positions.weight", sinusoids(96, 36)
    assert name not in {each.name for each in without}
    write_checkpoint(tmp_path / "with", config, [*without, Tensor(name, "f32", table.shape, table)])
    want = fd.load(tmp_path / "without").logits([1, 2], [3])
    np.testing.assert_array_equal(fd.load(tmp_path / "with").logits([1, 2], [3]), want)
    write_checkpoint(tmp_path / "other", config, [*without, Tensor(name, "f32", table.shape, 2 * table)])
    with pytest.warns(UserWarning, match=f"holds another {name}, which is not used"):
        np.testing.assert_array_equal(fd.load(tmp_path / "other").logits([1, 2], [3]), want)


@pytest.mark.parametrize(
    ("name", "changes", "error", "message"),
    [
        ("bart", dict(d_model=42), CheckpointError, "d_model must be a multiple of encoder_attention_heads = 4"),
        ("bart", dict(decoder_start_token_id=83), CheckpointError, "decoder_start_token_id must be a token, below 83"),
        ("bart", dict(normalize_before=True), UnsupportedError, "normalize_before True"),
        ("bart", dict(tie_word_embeddings=False), UnsupportedError, "tie_word_embeddings False"),
        ("bart", dict(num_hidden_layers=3), UnsupportedError, "num_hidden_layers 3"),
        (
            "marian",
            dict(share_encoder_decoder_embeddings=False),
            UnsupportedError,
            "share_encoder_decoder_embeddings False",
        ),
        ("marian", dict(decoder_vocab_size=90), UnsupportedError, "decoder_vocab_size 90"),
        ("marian", dict(activation_function="mish"), UnsupportedError, "activation_function 'mish'"),
        ("t5", dict(feed_forward_proj="gated-mish"), UnsupportedError, "feed_forward_proj 'mish'"),
        ("t5", dict(feed_forward_proj="open-relu"), UnsupportedError, "feed_forward_proj 'open-relu'"),
        (
            "t5",
            dict(relative_attention_num_buckets=9),
            CheckpointError,
            "relative_attention_num_buckets must be an even number",
        ),
        (
            "t5",
            dict(relative_attention_max_distance=4),
            CheckpointError,
            "relative_attention_max_distance must be more than half of",
        ),
        ("umt5", dict(decoder_start_token_id=83), CheckpointError, "decoder_start_token_id must be a token, below 83"),
    ],
)
def test_configs_that_cannot_be_are_refused_by_their_keys(name, changes, error, message):
    with pytest.raises(error, match=message):
        plan_for(family_config(name, **changes))


# ---- elsewhere ----


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_the_command_line_reads_a_prompt_as_the_source(run, tmp_path, name):
    folder = write(tmp_path / "model", name)
    model = fd.load(folder)
    code, out, _ = run("generate", folder, PROMPT, "--max-tokens", "9", "--json")
    said = json.loads(out)
    assert code == 0 and said["tokens"] == model.generate(PROMPT, max_tokens=9).tokens
    assert said["stats"]["prompt_tokens"] == len(model.tokenizer.encode(PROMPT))
    for decoder in ("speculative", "jacobi", "lookahead", "auto"):
        code, out, _ = run("generate", folder, PROMPT, "--max-tokens", "9", "--json", "--decoder", decoder)
        assert code == 0 and json.loads(out)["tokens"] == said["tokens"]
    code, out, _ = run("info", folder)
    assert code == 0
    assert f"encoder-decoder: writes of a source of up to {model.plan.source_positions:,} tokens" in out
    said = json.loads(run("info", folder, "--capacity", "100", "--json")[1])["model"]["session"]
    session = model.session(100)
    session.read_source([1] * 100)
    session.prefill([1] * 100)
    assert session.nbytes <= said["cache_bytes"] and said["source_token_bytes"] == session.encoded.cache.nbytes // 128
    assert "kB a token, and" in out and "of the source" in out
    code, _, err = run("generate", folder, "a" * (model.plan.source_positions + 1))
    assert code and "the source has" in err


def test_the_command_line_searches_as_the_folder_asks(run, searching):
    folder, how = searching.folder, ("--max-tokens", "8", "--json")
    best = searching.generate(PROMPT, max_tokens=8)
    for options in ((), ("--stop", "zz"), ("--repetition-penalty", "1.0")):
        said = json.loads(run("generate", folder, PROMPT, *how, *options)[1])
        assert (said["tokens"], said["score"], len(said["runners_up"])) == (best.tokens, best.score, 2)
    for options in (("--decoder", "plain"), ("--temperature", "0.5"), ("--top-k", "3"), ("--decoder", "jacobi")):
        assert "score" not in json.loads(run("generate", folder, PROMPT, *how, *options)[1])
    assert len(json.loads(run("generate", folder, PROMPT, *how, "--num-beams", "2")[1])["runners_up"]) == 1
    assert "tokens; by default the best of 3 beams" in run("info", folder)[1]
    assert json.loads(run("info", folder, "--json")[1])["model"]["search"] == BEAMS


def test_models_with_an_encoder_are_not_trained(tmp_path):
    with pytest.raises(UnsupportedError, match="bart has an encoder: such models are not trained here"):
        differentiate(network("bart").plan, ["model.shared.weight"])


def test_a_conversation_is_a_source_by_the_models_own_template(tmp_path):
    folder = write(tmp_path / "model", "t5")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}\n{% endfor %}", encoding="utf-8"
    )
    model = fd.load(folder)
    messages = [{"role": "user", "content": "the cat"}]
    answer = model.chat(messages, max_tokens=6)
    assert answer.tokens == model.generate(model.chat_prompt(messages), max_tokens=6).tokens
    assert "".join(model.chat(messages, max_tokens=6, stream=True)) == answer.text
