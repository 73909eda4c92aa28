"""Text under JSON schemas on the real model: plain decoding, and with guesses of copies and of what a schema leaves no choice in.

Twenty schemas, a question each.  Decoders take turns; the text is the same, and valid wherever it ends.  Beside: what masks take, and a
forward of one row.
"""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, Namespace
from functools import partial
from typing import Any

import numpy as np

import fastdistill as fd
from bench.lib.models import add_model_arguments
from bench.lib.report import Report
from bench.lib.timing import Samples, interleave
from fastdistill.constraint import JsonSchema
from fastdistill.kernels import default_threads, isa

LEAST_GAIN, MOST_SHARE = 1.5, 0.1  # of guesses, in time; of a mask's 99th percentile, in a forward of one row
TEXT, WORD, NUMBER, YES = (
    {"type": "string", "maxLength": 60},
    {"type": "string", "maxLength": 20},
    {"type": "integer"},
    {"type": "boolean"},
)
SCHEMAS: dict[str, dict[str, Any]] = {
    "a person": {"name": WORD, "age": NUMBER, "occupation": WORD, "married": YES},
    "a book": {"title": TEXT, "author": WORD, "year_of_publication": NUMBER, "number_of_pages": NUMBER},
    "a city": {"city": WORD, "country": WORD, "population": NUMBER, "has_airport": YES},
    "an order": {"order_number": NUMBER, "customer_name": WORD, "shipping_address": TEXT, "express_delivery": YES},
    "a recipe": {"recipe_name": WORD, "preparation_minutes": NUMBER, "ingredients": {"type": "array", "items": WORD, "minItems": 2, "maxItems": 5}},
    "a weather report": {"location": WORD, "temperature_celsius": NUMBER, "conditions": {"enum": ["sunny", "cloudy", "rainy", "snowy"]}},
    "a film": {"film_title": WORD, "director": WORD, "release_year": NUMBER, "genres": {"type": "array", "items": WORD, "maxItems": 3}},
    "a meeting": {"subject": TEXT, "start_hour": NUMBER, "end_hour": NUMBER, "participants": {"type": "array", "items": WORD, "maxItems": 4}},
    "a product": {"product_name": WORD, "price_in_cents": NUMBER, "in_stock": YES, "description": TEXT},
    "a flight": {"flight_number": WORD, "departure_airport": WORD, "arrival_airport": WORD, "delayed": YES},
    "a review": {"rating": {"type": "integer", "minimum": 1, "maximum": 5}, "summary": TEXT, "would_recommend": YES},
    "a bank transfer": {"sender_account": WORD, "recipient_account": WORD, "amount_in_cents": NUMBER, "currency": {"enum": ["EUR", "USD", "GBP"]}},
    "an animal": {"common_name": WORD, "scientific_name": WORD, "habitat": WORD, "endangered": YES},
    "a support ticket": {"ticket_title": TEXT, "priority": {"enum": ["low", "medium", "high"]}, "assigned_to": WORD},
    "a song": {"song_title": WORD, "artist": WORD, "duration_in_seconds": NUMBER, "album": WORD},
    "a planet": {"planet_name": WORD, "number_of_moons": NUMBER, "has_rings": YES, "discovered_by": WORD},
    "a job": {"job_title": WORD, "company": WORD, "annual_salary": NUMBER, "remote_work_possible": YES},
    "a course": {"course_title": TEXT, "instructor": WORD, "duration_in_weeks": NUMBER, "level": {"enum": ["beginner", "advanced"]}},
    "a sensor": {"sensor_identifier": WORD, "measured_value": NUMBER, "unit": WORD, "battery_low": YES},
    "a house": {"street_address": TEXT, "number_of_rooms": NUMBER, "square_metres": NUMBER, "has_garden": YES},
}  # fmt: skip


def schema_of(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": [*fields], "additionalProperties": False}


def add_arguments(parser: ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.set_defaults(threads=[default_threads()], levels=[isa()], repetitions=3)
    parser.add_argument("--tokens", type=int, default=120, help="most of an answer (default: %(default)s)")
    parser.add_argument("--schemas", type=int, default=len(SCHEMAS), help="the first so many (default: %(default)s)")


def run(options: Namespace) -> Report:
    report = Report(__doc__)
    model = fd.load(options.model, threads=options.threads[-1])
    decoders = {
        "plain": fd.Autoregressive(),
        "prompt lookup": fd.Speculative(fd.PromptLookup(), max_draft=12),
        "auto": "auto",
    }
    gains: dict[str, list[float]] = {name: [] for name in decoders}
    ended, masks, told = 0, list[float](), list[int]()
    report.table(f"threads: {model.threads}, level: {isa()}")
    for what, fields in [*SCHEMAS.items()][: options.schemas]:
        schema = schema_of(fields)
        prompt = model.chat_prompt(
            [{"role": "user", "content": f"Describe {what} as JSON under this schema: {json.dumps(schema)}"}]
        )
        asked: dict[str, Any] = dict(max_tokens=options.tokens, grammar=JsonSchema(schema))
        texts = {name: model.generate(prompt, decoder=decoder, **asked) for name, decoder in decoders.items()}
        assert len({each.text for each in texts.values()}) == 1, "decoders differ"
        if texts["plain"].finish_reason == "stop":
            json.loads(texts["plain"].text)
            ended += 1
        turns = {name: partial(seconds, model, prompt, decoder, asked) for name, decoder in decoders.items()}
        taken = {name: Samples.of(found) for name, found in interleave(turns, options.repetitions).items()}
        for name, found in taken.items():
            gains[name].append((taken["plain"] / found).median)
        masks += mask_seconds(model, JsonSchema(schema), texts["plain"].tokens)
        told.append(len(texts["plain"].tokens))
        report.row(
            schema=what, tokens=told[-1], forwards_plain=texts["plain"].stats.forwards, forwards=texts["prompt lookup"].stats.forwards,
            ms=taken["plain"] * 1e3, **{f"times_{name}": taken["plain"] / found for name, found in taken.items() if name != "plain"},
        )  # fmt: skip
    row = Samples.of(forward_seconds(model)).median
    half, most = np.quantile(masks, [0.5, 0.99])
    report.note(f"{ended} of {len(told)} texts ended, each valid JSON; others are cut at {options.tokens} tokens")
    for name in [*decoders][1:]:
        gain = float(np.median(gains[name]))
        report.note(
            f"{name}: {gain:.2f} times as fast as plain, median over schemas; at least {LEAST_GAIN:g} asked: {verdict(gain >= LEAST_GAIN)}"
        )
    report.note(
        f"a mask of {model.vocab_size} tokens: {half * 1e6:.0f} us, 99th percentile {most * 1e6:.0f}; a forward of one row {row * 1e6:.0f} us: "
        f"{most / row:.1%} of it; at most {MOST_SHARE:.0%} asked: {verdict(most <= MOST_SHARE * row)}"
    )
    return report


def verdict(reached: bool) -> str:
    return "reached" if reached else "not reached"


def seconds(model: fd.Model, prompt: list[int], decoder: Any, asked: dict[str, Any]) -> float:
    """Of the tokens behind the prompt."""
    stats = model.generate(prompt, decoder=decoder, **asked).stats
    return stats.decode_seconds


def mask_seconds(model: fd.Model, grammar: JsonSchema, tokens: list[int]) -> list[float]:
    """Of the steps along a text: to go on by a token, and to make the mask behind it."""
    constraint, found = grammar.bound(model.tokenizer, model.vocab_size), []
    state: Any = constraint.start()
    for token in tokens:
        if token in model.end_tokens:
            break
        began = time.perf_counter()
        constraint.mask(state)
        state = constraint.advance(state, token)
        found.append(time.perf_counter() - began)
    return found[1:]  # the first mask of all is made with what the grammar compiles at its first use


def forward_seconds(model: fd.Model, context: int = 64) -> list[float]:
    session, found = model.session(context + 2), []
    session.prefill([*range(10, 10 + context)])
    for _ in range(50):
        began = time.perf_counter()
        session.forward([7], rows="last")
        found.append(time.perf_counter() - began)
        session.truncate(context)
    return found
