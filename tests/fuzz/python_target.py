"""One target in Python under atheris: `python -m tests.fuzz.python_target NAME [OPTION-OF-LIBFUZZER ...]`."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from random import Random

import atheris

with atheris.instrument_imports(include=["fastdistill"]):
    import fastdistill  # noqa: F401
    from tests.fuzz import law


def main(name: str, *options: str) -> None:
    with atheris.instrument_imports(include=["fastdistill"]):
        target = law.target(name)
    warnings.simplefilter("ignore")
    law.limit_memory()

    def changed(data: bytes, most: int, seed: int) -> bytes:
        """Half of the changes know the format."""
        random = Random(seed)
        if random.random() < 0.5:
            return atheris.Mutate(data, most)
        return target.changed(data, random)[:most]

    with tempfile.TemporaryDirectory() as folder:
        # libFuzzer starts itself again to merge: by this name, which stands for the whole command.
        again = os.path.join(folder, "again")
        with open(os.open(again, os.O_CREAT | os.O_WRONLY, 0o700), "w") as file:
            file.write(f'#!/bin/sh\nexec {sys.executable} -m tests.fuzz.python_target {name} "$@"\n')
        atheris.Setup(
            [again, *options], target.run, **({"custom_mutator": changed} if hasattr(target, "changed") else {})
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
