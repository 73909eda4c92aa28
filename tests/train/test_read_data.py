"""Files become examples: the right tokens count, nothing is lost, and what is wrong is named with its file and line."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdistill.errors import ArgumentError, DataError
from fastdistill.text.chat import render_chat
from fastdistill.text.tokenizer import Tokenizer
from fastdistill.train.data import make_data, read_data
from tests.train.data_made_here import END, START, THINKING, tokenizer


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return tokenizer(tmp_path_factory.mktemp("tokenizers") / "made")


def sequences(data):
    return [data.tokens[data.rows(number)].tolist() for number in range(len(data))]


def learnt(data, number=0):
    """What is predicted of a sequence."""
    rows = data.rows(number)
    return data.tokens[rows][data.counted[rows]].tolist()


def lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


@given(texts=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4), most=st.integers(2, 9))
def test_a_text_is_learnt_whole_and_goes_on_in_the_next_sequence(text, texts, most):
    data = make_data([{"text": one, "source": 7} for one in texts], text, max_length=most)
    pieces, wanted = sequences(data), []
    for one in texts:
        tokens = [*text.encode(one), END]
        wanted += [tokens[at : at + most] for at in range(0, len(tokens), most)]
    assert pieces == [piece for piece in wanted if len(piece) > 1]  # a single token follows nothing
    assert data.counted.all() and not data.prompts.any()


def test_a_text_that_has_its_end_gets_no_second_one(text, tmp_path):
    assert sequences(make_data([{"text": "ab<|end|>"}], text)) == [[*text.encode("ab"), END]]
    endless = tokenizer(tmp_path / "endless", eos_token="")
    assert sequences(make_data([{"text": "abx"}], endless)) == [endless.encode("abx")]


@given(
    prompt=st.text(min_size=1, max_size=12),
    answer=st.text(max_size=12),
    all=st.booleans(),
    name=st.sampled_from(["completion", "response"]),
)
def test_of_a_prompt_and_its_completion_the_completion_is_learnt(text, prompt, answer, all, name):
    data = make_data([{"prompt": prompt, name: answer}], text, train_on="all" if all else "completions")
    ((tokens),) = sequences(data)
    asked = text.encode(prompt)
    assert tokens[: len(asked)] == asked and data.prompts.tolist() == [len(asked)]  # as the model is asked
    assert text.decode(tokens, skip_special=False) == prompt + answer + "<|end|>" * (
        not (prompt + answer).endswith("<|end|>") or not answer
    )
    assert learnt(data) == (tokens if all else tokens[len(asked) :])


def test_a_completion_has_its_tokens_in_the_text_unless_the_prompt_then_lacks_its_own(text):
    (joined,) = sequences(make_data([{"prompt": "x", "completion": " the"}], text))
    assert joined == [*text.encode("x the"), END]
    (apart,) = sequences(make_data([{"prompt": "a", "completion": "b"}], text))
    assert apart == [*text.encode("a"), *text.encode("b"), END] != [*text.encode("ab"), END]


CHAT = [
    {"role": "system", "content": "be"},
    {"role": "user", "content": "ab"},
    {"role": "assistant", "content": "abc the"},
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": "y"},
]


def test_of_a_conversation_the_turns_of_the_assistant_are_learnt_up_to_their_ends(text):
    data = make_data([{"messages": CHAT, "id": 3}], text)
    whole = "".join(f"<|start|>{each['role']}\n{each['content']}<|end|>\n" for each in CHAT)
    assert sequences(data) == [text.encode(whole, special=False)[:-1]]  # but for the last line's end
    assert learnt(data) == [*text.encode("abc the"), END, *text.encode("y"), END]
    assert data.prompts.tolist() == [len(sequences(data)[0]) - 2]
    assert make_data([{"messages": CHAT}], text, train_on="all").counted.all()


def test_of_a_conversation_that_is_cut_a_prompt_is_known_where_it_is_whole_and_leaves_room(text):
    ((whole,), prompt) = (sequences(made := make_data([{"messages": CHAT}], text)), int(made.prompts[0]))
    for most in range(2, len(whole) + 1):
        data = make_data([{"messages": CHAT}], text, max_length=most)
        assert sequences(data)[-1][-2:] == whole[-2:] or most * (len(whole) // most) == len(whole) - 1
        assert (data.predicted > 0).all() and data.lengths.max() <= most
        assert data.prompts.tolist() == [prompt * (prompt < most), *[0] * (len(data) - 1)]


def test_prompts_and_completions_may_be_messages(text):
    data = make_data([{"prompt": CHAT[:4], "completion": CHAT[4:]}], text)
    assert learnt(data) == [*text.encode("y"), END]
    assert sequences(data) == sequences(make_data([{"messages": CHAT}], text))


def test_a_conversation_that_ends_with_a_question_is_a_prompt(text):
    data = make_data([{"messages": CHAT[:2]}, {"messages": CHAT[:4]}, {"prompt": CHAT[:2]}, {"prompt": "ab"}], text)
    ended = text.encode("<|start|>assistant\n", special=False)
    assert all(sequence[-len(ended) :] == ended for sequence in sequences(data)[:3])
    assert data.prompts.tolist() == data.lengths.tolist()
    assert [learnt(data, number) for number in range(4)] == [[], [*text.encode("abc the"), END], [], []]


def test_a_turn_that_opens_a_conversation_is_not_learnt(text):
    assert learnt(make_data([{"messages": [CHAT[2], *CHAT[3:]]}], text)) == [*text.encode("y"), END]
    with pytest.warns(UserWarning, match="1 of 1 records have nothing to predict"):
        assert len(make_data([{"messages": [CHAT[2]]}], text)) == 0


def test_a_turn_that_a_template_writes_otherwise_later_is_learnt_as_it_was_written(tmp_path):
    text = tokenizer(tmp_path / "thinking", THINKING)
    chat = [dict(turn, thinking="t") if turn["role"] == "assistant" else turn for turn in CHAT]
    data = make_data([{"messages": chat}], text)
    assert [text.decode(learnt(data, number)) for number in (0, 1)] == ["[t]y", "[t]abc the"]
    last, first = (text.decode(sequence) for sequence in sequences(data))
    assert "[t]abc" not in last and first.endswith("[t]abc the")


def test_a_template_that_opens_the_thinking_is_learnt_from_there(tmp_path):
    opening = tokenizer(tmp_path / "opening", THINKING.replace("assistant\n{% endif", "assistant\n[{% endif"))
    data = make_data([{"messages": CHAT[:3]}], opening)
    assert opening.decode(learnt(data)) == "abc the"


@pytest.mark.parametrize(
    "before", ["{{ messages|length if not add_generation_prompt else 0 }}", "{{ '?' if add_generation_prompt }}"]
)
def test_a_template_that_rewrites_a_question_once_it_is_answered_is_refused(tmp_path, before):
    odd = f"{before}{{% for m in messages %}}{{{{ m.content }}}}{{% endfor %}}"
    with pytest.raises(DataError, match=r"records\[0\]: the chat template writes what precedes turn 2 otherwise"):
        make_data([{"messages": CHAT[:3]}], tokenizer(tmp_path / "odd", odd))


def test_files_and_folders_in_order(text, tmp_path):
    folder = tmp_path / "data"
    (folder / "deeper").mkdir(parents=True)
    lines(folder / "b.jsonl", [{"text": "b1"}, {"text": "b2"}])
    (folder / "a.txt").write_bytes(b"\xef\xbb\xbfone\n\ntwo\n")
    (folder / "deeper/c.ndjson").write_bytes(b'\xef\xbb\xbf{"text": "c"}\r\n\n   \n{"text": "d"}')
    (folder / "README.md").write_text("no data")
    counts = []
    data = read_data(folder, text, progress=counts.append)
    read = [text.decode(sequence) for sequence in sequences(data)]
    assert read == ["one\n\ntwo\n", "b1", "b2", "c", "d"] and counts == [1, 2, 3, 4, 5]
    again = read_data([folder / "deeper", str(folder / "b.jsonl")], text)
    assert [text.decode(sequence) for sequence in sequences(again)] == ["c", "d", "b1", "b2"]
    assert again.digest != data.digest == read_data([folder], text).digest


def test_a_long_file_is_read_in_blocks_and_is_one_document(text, tmp_path, monkeypatch):
    whole = "".join(f"the line {number} ab\n" for number in range(60)) + "no end"
    (tmp_path / "long.txt").write_text(whole)
    at_once = read_data(tmp_path / "long.txt", text, max_length=50)
    monkeypatch.setattr("fastdistill.train.data.records.BLOCK", 64)
    data = read_data(tmp_path / "long.txt", text, max_length=50)
    begins = tokenizer(tmp_path / "begins", begins=True)
    assert read_data(tmp_path / "long.txt", begins).tokens.tolist() == [START, *text.encode(whole), END]
    assert data.digest == at_once.digest and data.tokens.tolist() == [*text.encode(whole), END]
    assert set(data.lengths[:-1].tolist()) == {50}


def test_arrays_are_bare_numbers(text):
    data = make_data([{"text": "ab the x"}] * 100, text)
    assert (data.tokens.dtype, data.starts.dtype, data.counted.dtype) == (np.int32, np.int64, bool)
    total = sum(array.nbytes for array in (data.tokens, data.starts, data.counted, data.prompts))
    assert total <= 5 * len(data.tokens) + 12 * len(data) + 8


def test_what_has_nothing_to_predict_is_left_out_with_a_warning(text):
    records = [{"text": ""}, {"prompt": "abxyz" * 3, "completion": "no room"}, {"prompt": "long" * 9}, {"text": "xy"}]
    with pytest.warns(UserWarning, match="2 of 4 records have nothing to predict within 8 tokens"):
        data = make_data(records, text, max_length=8)
    assert [text.decode(sequence) for sequence in sequences(data)][-1] == "xy"
    assert not data.prompts.any() and (data.predicted > 0).all()  # a prompt that was cut asks something else


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, 'has the keys (none); expected "messages", "prompt" with "completion", or "text"'),
        ({"input": 1, "output": 2}, "has the keys 'input', 'output'; expected"),
        ({"text": 3}, 'its "text" must be a text, found 3'),
        ({"text": None}, 'its "text" must be a text, found None'),
        ({"prompt": 3, "completion": "x"}, 'its "prompt" must be a text, found 3'),
        ({"prompt": "x", "completion": [1]}, 'its "completion" must be a text, found [1]'),
        ({"prompt": [CHAT[1]], "completion": "x"}, 'its "completion" must be a text, or messages as its other part'),
        ({"messages": "hello"}, "its \"messages\" must be a list of messages, found 'hello'"),
        ({"messages": ["hello"]}, 'its "messages" must be a list of messages'),
        ({"messages": []}, "messages must hold at least one"),
        ({"messages": [{"content": "x"}]}, "must name its role"),
        ({"text": "\ud800"}, "without lone surrogates"),
    ],
)
def test_a_record_that_is_no_example_is_named(text, tmp_path, record, message):
    with pytest.raises(DataError) as caught:
        make_data([{"text": "right"}, record], text)
    assert str(caught.value).startswith("records[1]: ") and message in str(caught.value)
    path = lines(tmp_path / "data.jsonl", [{"text": "right"}, record])
    with pytest.raises(DataError) as caught:
        read_data(path, text)
    assert str(caught.value).startswith(f"{path}:2: ") and message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"text": "x"}\n\n{"text": \n', ":3: is not valid JSON: "),
        (b'{"text": "x", "text": "y"}', ":1: is not valid JSON: "),
        (b'{"text": "x"}\n{"text": "\xff"}', ":2: is not valid JSON: "),
        (b'{"text": "x"}\n["text"]', ":2: must be a JSON object, found ['text']"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ],
)
def test_a_broken_line_is_named(text, tmp_path, data, message):
    (tmp_path / "data.jsonl").write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_data(tmp_path / "data.jsonl", text)
    assert f"data.jsonl{message}" in str(caught.value).replace(": is a Git", "is a Git")


def test_a_plain_file_that_is_no_utf8_is_named(text, tmp_path):
    (tmp_path / "data.txt").write_bytes(b"right\nwr\xffng")
    with pytest.raises(DataError, match=r"data\.txt:2: is not UTF-8: invalid start byte at byte 2 of the line"):
        read_data(tmp_path, text)


def test_files_that_are_not_there_or_of_other_kinds(text, tmp_path):
    (tmp_path / "data.parquet").write_bytes(b"")
    for paths, message in [
        (tmp_path, r"the folder holds none of \*\.jsonl, \*\.ndjson, \*\.txt"),
        (tmp_path / "data.parquet", r"expected a folder, or a file whose name ends in \.jsonl"),
        (tmp_path / "none.jsonl", r"none\.jsonl: cannot be read: No such file"),
    ]:
        with pytest.raises(DataError, match=message):
            read_data(paths, text)
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match=r"pipe\.txt: cannot be read: it is no regular file"):
        read_data(tmp_path, text)
    for paths in (3, [], [None]):
        with pytest.raises(ArgumentError, match="paths must be"):
            read_data(paths, text)
    for options in (dict(max_length=1), dict(train_on="prompts"), dict(tokenizer=3)):
        with pytest.raises(ArgumentError):
            make_data([], **{"tokenizer": text} | options)
    for records in ({"text": "x"}, "text", 3, [3]):
        with pytest.raises(ArgumentError, match="records"):
            make_data(records, text)
    assert START in text.special_ids


@pytest.mark.model
def test_turns_of_a_published_template(smollm2):
    text = Tokenizer(smollm2)
    data = make_data([{"messages": CHAT}, {"messages": CHAT[1:3]}], text)
    tokens = sequences(data)[0]
    end = text.token_id("<|im_end|>")
    assert learnt(data) == [*text.encode("abc the"), end, *text.encode("y"), end]
    prompt = data.prompts[0]
    assert tokens[:prompt] == text.encode(render_chat(text, CHAT[:4]), special=False) and tokens[prompt:] == [
        *text.encode("y"),
        end,
    ]
    prompt = data.prompts[1]
    assert sequences(data)[1][:prompt] == text.encode(
        render_chat(text, CHAT[1:2]), special=False
    )  # a system's turn of the template's own
