"""The official JSON Schema Test Suite held against `fd.constraint.JsonSchema`, on the real model.

    python -m tests.json_schema_suite FOLDER [--texts N] [--record]

FOLDER holds the suite's drafts, as json/tests of the sdist of the package jsonschema does.  Each schema either is declined, or lets valid
instances through and no others; then the model writes texts under N of those, and each that ends is valid.  Counts are those of
tests/goldens/json_schema_suite.json: no instance is wrongly accepted, and fewer schemas may be declined than there, not more.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema

import fastdistill as fd
from fastdistill.constraint import JsonSchema
from fastdistill.decode.constraint import Constraint
from fastdistill.errors import ArgumentError

GOLDEN = Path(__file__).parent / "goldens" / "json_schema_suite.json"
DRAFTS = {
    "draft6": jsonschema.Draft6Validator,
    "draft7": jsonschema.Draft7Validator,
    "draft2019-09": jsonschema.Draft201909Validator,
    "draft2020-12": jsonschema.Draft202012Validator,
}


def is_accepted(model: fd.Model, constraint: Constraint, value: Any) -> bool:
    state = constraint.start()
    for token in model.tokenizer.encode(json.dumps(value, ensure_ascii=False), special=False):
        state = constraint.advance(state, token)
        if state is None:
            return False
    return constraint.may_end(state)


def judged(model: fd.Model, folder: Path) -> tuple[Counter[str], list[str], list[tuple[Any, Any]]]:
    """Counts of one draft, what was wrongly accepted, and the schemas that were held, with their validators."""
    counts, wrong, held = Counter[str](), [], []
    for file in sorted(folder.rglob("*.json")):
        for group in json.loads(file.read_text("utf-8")):
            counts["schemas"] += 1
            try:
                constraint = JsonSchema(group["schema"]).bound(model.tokenizer, model.vocab_size)
            except ArgumentError:
                counts["declined"] += 1
                continue
            held.append((group["schema"], DRAFTS[folder.name](group["schema"])))
            for test in group["tests"]:
                counts["instances"] += 1
                accepted = is_accepted(model, constraint, test["data"])
                counts["refused though valid"] += test["valid"] and not accepted
                if accepted and not test["valid"]:
                    wrong.append(
                        f"{folder.name}/{file.name}: {group['description']}: {test['description']}: {json.dumps(test['data'])}"
                    )
    counts["wrongly accepted"] = len(wrong)
    return counts, wrong, held


def written(model: fd.Model, held: list[tuple[Any, Any]]) -> tuple[Counter[str], list[str]]:
    """How texts under these schemas ended, and what is wrong with those that did."""
    counts, wrong = Counter[str](), []
    for number, (schema, validator) in enumerate(held):
        decoder = (fd.Autoregressive(), fd.Speculative(fd.PromptLookup()), fd.Jacobi(), "auto")[number % 4]
        text = model.generate(
            "As JSON: ",
            grammar=JsonSchema(schema),
            decoder=decoder,
            temperature=number % 3 / 2,
            seed=number,
            max_tokens=48,
        )
        counts[text.finish_reason] += 1
        if text.finish_reason == "stop":
            try:
                exact = validator.evolve(
                    schema=json.loads(json.dumps(schema), parse_float=Decimal)
                )  # 1.2 is a multiple of 0.0001
                if not (
                    validator.is_valid(json.loads(text.text))
                    or exact.is_valid(json.loads(text.text, parse_float=Decimal))
                ):
                    wrong.append(f"{schema}: {text.text!r} is not valid")
            except re.error:
                counts["under a pattern that Python does not read"] += 1
            except ValueError:
                wrong.append(f"{schema}: {text.text!r} is no JSON")
    return counts, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--record", action="store_true", help="write the counts")
    options = parser.parse_args()
    model, found, wrong, held = fd.load(options.model, text=True), {}, [], []
    for draft in DRAFTS:
        counts, accepted, schemas = judged(model, options.folder / draft)
        found[draft], wrong, held = dict(counts), wrong + accepted, held + schemas
        print(draft, found[draft], flush=True)
    apart = held[:: max(1, len(held) // options.texts)][: options.texts] if options.texts else []
    reasons, invalid = written(model, apart)
    print(f"{len(apart)} texts: {dict(reasons)}")
    print(*wrong, *invalid, sep="\n")
    if options.record:
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    known = json.loads(GOLDEN.read_text("utf-8"))
    worse = [draft for draft in DRAFTS if found[draft]["declined"] > known[draft]["declined"]]
    if worse:
        print(f"more schemas declined than recorded: {', '.join(worse)}", file=sys.stderr)
    return bool(worse or wrong or invalid)


if __name__ == "__main__":
    sys.exit(main())
