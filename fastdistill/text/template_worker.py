"""The program of the process in which `templates.render_template` runs a chat template.  It reads `platform.py` and nothing else of the package.

A request is a `REQUEST`: bytes of memory, seconds of processor time, and the lengths of what follows: the template, and
its variables, marshalled. A reply is a letter, eight bytes of length, and text: T what was rendered, R why the template
refuses, E what failed, M out of memory, I no jinja2. Time beyond what the request grants ends the process, wherever it
is (`platform.bounded`).
"""

from __future__ import annotations

import marshal
import sys

if __name__ == "__main__":
    sys.path[:] = sys.argv[1:]  # of the process that asks: it was started without any

import codecs
import datetime
import json
import re
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

REQUEST = struct.Struct("<QdQQ")
OLDEST = (3, 1, 6)  # of jinja2: the sandboxes before it have known ways out
LONGEST_REASON = 400


def compiler() -> Any:
    """What compiles a template's text, in the environment that transformers gives it.

    Raises
    ------
    ImportError
    """
    import jinja2

    if tuple(map(int, re.findall(r"\d+", jinja2.__version__)[:3])) < OLDEST:
        raise ImportError(f"{'.'.join(map(str, OLDEST))} or newer, found {jinja2.__version__}")
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """`{% generation %}`, which marks the assistant's words for training: what is inside, as it is."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

        def _inside(self, caller: Any) -> Any:
            return caller()

    class Dict:
        """`dict(...)` and nothing else of the class."""

        def __call__(self, *arguments: Any, **items: Any) -> dict[Any, Any]:
            return dict(*arguments, **items)

        def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
            return dict.fromkeys(keys, value)

    class PublicNamespace(Namespace):
        """`namespace(...)`, whose attributes are never those that Python uses itself."""

        def __init__(*arguments: Any, **attributes: Any) -> None:
            self, *rest = arguments
            found = dict(*rest, **attributes)
            for name in found:
                PublicNamespace.check(name)
            Namespace.__init__(self, found)

        def __setitem__(self, name: str, value: Any) -> None:
            PublicNamespace.check(name)
            Namespace.__setitem__(self, name, value)

        @staticmethod
        def check(name: Any) -> None:
            if isinstance(name, str) and name.startswith("_"):
                raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name[:60]!r}")

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def strftime_now(format: str) -> str:
        return datetime.datetime.now().strftime(format)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        # jinja2's own escapes what HTML would misread
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
        "dict": Dict(),
        "namespace": PublicNamespace,
    }
    return lru_cache(maxsize=8)(environment.from_string)


def reason(error: Exception) -> str:
    """What failed, and on which line of the template."""
    line, trace = getattr(error, "lineno", None), error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    place = f"line {line}: " if isinstance(line, int) else ""
    return f"{place}{type(error).__name__}: {error}"


def load_all() -> None:
    """What jinja2 and Python load when a template asks for it, the local time zone too: soon this process opens no file."""
    import html  # noqa: F401
    import pprint  # noqa: F401
    import textwrap  # noqa: F401

    import jinja2.constants
    import jinja2.debug  # noqa: F401

    codecs.lookup("unicode-escape")  # of strings in a template
    datetime.datetime.now().strftime("%c %Z")


def reply(kind: bytes, data: bytes) -> None:
    sys.stdout.buffer.write(kind + len(data).to_bytes(8, "little") + data)
    sys.stdout.buffer.flush()


def serve() -> None:
    """Answer requests until there are no more."""
    try:
        compiled = compiler()
    except ImportError as error:
        return reply(b"I", str(error)[:LONGEST_REASON].encode())
    import runpy

    from jinja2 import TemplateError

    system = runpy.run_path(
        str(Path(__file__).parents[1] / "platform.py")
    )  # the package itself may be nowhere on the path
    before = system["used_memory"]()
    load_all()
    system["shut_in"]()  # were a template to find a way out of the sandbox
    while len(request := sys.stdin.buffer.read(REQUEST.size)) == REQUEST.size:
        memory, seconds, *sizes = REQUEST.unpack(request)
        template, variables = (sys.stdin.buffer.read(size) for size in sizes)
        with system["bounded"](before + memory, seconds):
            try:
                kind, text = b"T", compiled(template.decode("utf-8", "surrogatepass")).render(marshal.loads(variables))
            except MemoryError:
                kind, text = b"M", ""
            except Exception as error:  # a template is a program: it may fail in any way
                refused = type(error) is TemplateError
                kind, text = b"R" if refused else b"E", (str(error) if refused else reason(error))[:LONGEST_REASON]
            data = text.encode("utf-8", "surrogatepass")
        reply(kind, data)


if __name__ == "__main__":
    serve()
