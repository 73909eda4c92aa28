"""Templates are programs of strangers: each ends soon, within its memory, as text or as a TextError."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdistill import platform
from fastdistill.errors import ArgumentError, TextError
from fastdistill.text import template_worker, templates
from fastdistill.text.templates import render_template


@pytest.fixture(autouse=True)
def end():
    """An end to a test whose template does not end."""

    def give_up(*_):
        raise TimeoutError("nothing has ended this template")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def narrow(monkeypatch):
    """Limits that are soon met."""
    monkeypatch.setattr(templates, "SECONDS", 0.05)
    monkeypatch.setattr(templates, "MEMORY", 64 << 20)


DOUBLED = (
    "{% set ns = namespace(x='ab', l=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}"
)
SHARED = "{% set ns = namespace(l=[0], m=[0]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% set ns.m = [ns.m, ns.m] %}{% endfor %}"
HOSTILE = {
    "nested ranges": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops without a body": "{% for i in range(99999) %}{{ range(99999) | sum }}{% endfor %}",
    "a long string": "{{ ('a' * 10**10) | length }}",
    "a long string, when compiled": "{{ 'a' * 10**10 }}",
    "a long list": "{{ [0] * 10**10 }}",
    "a power": "{{ 3 ** (10 ** 9) }}",
    "a power of a power": "{{ ((3 ** 99999) ** 9999) ** 999 }}",
    "squares": "{% set ns = namespace(x=3) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "center": "{{ 'a' | center(10**10) }}",
    "ljust": "{{ 'a'.ljust(10**10) }}",
    "zfill": "{{ '1'.zfill(10**10) }}",
    "expandtabs": "{{ ('\\t' * 9999).expandtabs(10**9) }}",
    "percent": "{{ '%10000000000d' % 1 }}",
    "format": "{{ '{:>10000000000}'.format(1) }}",
    "format filter": "{{ '%*d' | format(10**9, 1) }}",
    "replace": "{{ ('a' * 10**5).replace('', 'b' * 10**5) }}",
    "replace filter": "{{ ('a' * 10**5) | replace('a', 'b' * 10**5) }}",
    "join": "{{ range(99999) | join('a' * 10**5) }}",
    "join method": "{{ ('a' * 10**5).join('b' * 10**5) }}",
    "indent": "{{ ('a\\n' * 10**5) | indent(10**6) }}",
    "tojson": "{{ [1] | tojson(indent=10**10) }}",
    "tojson of much": "{{ {'a': [[1] * 9999] * 9999} | tojson }}",
    "lipsum": "{{ lipsum(n=10**7) }}",
    "lipsum of words": "{{ lipsum(n=1, min=10**9, max=10**9 + 1) }}",
    "doubling": DOUBLED,
    "doubling, in a block": "{% set x = 'ab' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60 + "{{ x }}",
    "doubling lists": DOUBLED.replace("ns.x ~ ns.x", "ns.x + ns.x").replace("'ab'", "[1]"),
    "shared lists, printed": SHARED + "{{ ns.l }}",
    "shared lists, compared": SHARED + "{{ ns.l == ns.m }}",
    "shared lists, as JSON": SHARED + "{{ ns.l | tojson }}",
    "shared lists, sorted": SHARED + "{{ [ns.l, ns.m] | sort | length }}",
    "macros": "".join(f"{{% macro m{i}() %}}{{{{ m{i + 1}() }}}}{{{{ m{i + 1}() }}}}{{% endmacro %}}" for i in range(60))
    + "{% macro m60() %}{% endmacro %}{{ m0() }}",
    "a recursive macro": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "a recursive loop": "{% for i in [[[]]] recursive %}{{ loop([i, i]) }}{% endfor %}",
    "calls in calls": "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}" + "{% call m() %}" * 18 + "x" * 10**4 + "{% endcall %}" * 18,
    "batch": "{{ [1] | batch(10**10, 0) | list }}",
    "slice": "{{ [1] | slice(10**10, 0) | list | length }}",
    "wordwrap": "{{ ('a ' * 10**6) | wordwrap(1, wrapstring='b' * 10**6) }}",
    "urlize": "{{ ('http://a.' * 10**6) | urlize(10**6) }}",
    "a deep list": "{{ " + "[" * 10**5 + "]" * 10**5 + " }}",
    "deep brackets": "{{ " + "(" * 10**5 + "1" + ")" * 10**5 + " }}",
    "deep blocks": "{% if 1 %}" * 10**4 + "{% endif %}" * 10**4,
    "many branches": "{% if 0 %}" + "{% elif 0 %}" * 10**5 + "{% endif %}",
    "much to compile": "{{ a + b * c[1] if d else e }}" * 20000,
    "a way out": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "a way out by format": "{{ '{0.__class__.__mro__}'.format('') | length - ''.nothing.there }}",
    "a way out by a namespace": "{{ namespace(__class__=1) }}",
    "a way to change things": "{{ messages.append(1) }}",
    "files": "{% include '/etc/passwd' %}",
    "imports": "{% import 'os' as os %}",
}  # fmt: skip


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_template_ends_as_a_text_error(narrow, template):
    with pytest.raises(TextError) as error:
        render_template(template, {"messages": [{"role": "user", "content": "x"}]})
    assert len(str(error.value)) < 600 and "\n" not in str(error.value)


def grown(inner):
    """A template's expression that makes its parts larger, or takes longer over them."""
    large = st.sampled_from(["9", "10**4", "10**6", "10**9", "10**18", "-1"])
    two = st.tuples(inner, inner)
    return st.one_of(
        st.tuples(inner, large).map(lambda x: f"({x[0]} * {x[1]})"),
        two.map(lambda x: f"({x[0]} ~ {x[1]})"),
        two.map(lambda x: f"[{x[0]}, {x[1]}]"),
        two.map(lambda x: f"({x[0]} == {x[1]})"),
        two.map(lambda x: f"({x[0]} | string).replace({x[1]} | string, 'ab')"),
        two.map(lambda x: f"({x[0]} | string).join([{x[1]} | string] * 9)"),
        st.tuples(inner, large).map(lambda x: f"({x[0]} | string | center({x[1]}))"),
        st.tuples(inner, large).map(lambda x: f"({x[0]} | tojson(indent={x[1]}))"),
        st.tuples(inner, large).map(lambda x: f"({x[0]} | list | batch({x[1]}, 0) | list)"),
        st.tuples(inner, large).map(lambda x: f"('%%%ds' % {x[1]} % {x[0]})"),
        inner.map(lambda x: f"({x} | length ** 99)"),
        inner.map(lambda x: f"({x} | pprint | wordwrap(1) | title)"),
    )


EXPRESSIONS = st.recursive(st.sampled_from(["'a'", "[1]", "messages", "range(9999)", "7", "x", "lipsum(9)"]), grown)


@given(data=st.data())
@settings(max_examples=15)
def test_any_template_ends_as_text_or_as_a_text_error(narrow, data):
    body = f"{{% set x = {data.draw(EXPRESSIONS)} %}}{{{{ {data.draw(EXPRESSIONS)} | string | length }}}}"
    for _ in range(data.draw(st.integers(0, 3))):
        body = f"{{% for i in range({data.draw(st.sampled_from([2, 99999]))}) %}}{body}{{% endfor %}}"
    with suppress(TextError):
        assert isinstance(render_template(body, {"messages": [{"role": "user", "content": "x"}]}), str)


def test_the_limit_that_was_met_is_named(narrow, monkeypatch):
    with pytest.raises(TextError, match=r"takes more than 0\.05 s of processor time"):
        render_template(HOSTILE["nested ranges"], {})
    with pytest.raises(TextError, match="takes more than 64 MB of memory"):
        render_template("{{ ('a' * 10**8) | length }}", {})
    monkeypatch.setattr(templates, "SECONDS", 10.0)
    monkeypatch.setattr(templates, "MEMORY", 1 << 28)
    assert render_template("{{ ('a' * 10**8) | length }}", {}) == str(10**8)
    monkeypatch.setattr(templates, "TEXT", 100)
    assert render_template("{{ 'a' * n }}", {"n": 99}) == "a" * 99
    with pytest.raises(TextError, match="writes 100,000 bytes; expected at most"):
        render_template("{{ 'a' * n }}", {"n": 10**5})


def test_what_is_given_may_be_larger_than_what_a_template_may_take(monkeypatch):
    monkeypatch.setattr(templates, "MEMORY", 8 << 20)
    text = "é" * (8 << 20)
    assert render_template("{{ x }}", {"x": 1}) == "1"  # within a small limit, which does not hold for the next
    assert render_template("{% for c in [x] %}{{ c }}{{ c | upper }}{% endfor %}", {"x": text}) == text + text.upper()


def test_an_error_names_the_line_and_costs_nobody_else_anything():
    with pytest.raises(TextError, match="failed: line 3: ZeroDivisionError: "):
        render_template("a\nb\n{{ 1 // 0 }}", {})
    with pytest.raises(TextError, match="failed: line 2: TemplateSyntaxError: "):
        render_template("a\n{% for", {})
    (worker,) = templates._idle[-1:]
    with pytest.raises(TextError, match=r"refuses: one line only$"):
        render_template("{{ raise_exception('one\nline \t only') }}", {})
    assert templates._idle[-1] is worker and render_template("{{ 1 }}", {}) == "1"


# Each of them makes jinja2 or Python load something, where it has not yet.
LATE = [
    "{{ 'a b' | wordwrap(1) }}", "{{ [1] | pprint }}", "{{ lipsum(n=1) | length > 9 }}", "{{ '<b>a</b>' | striptags }}", "{{ 'a' | e }}",
    "{{ '&lt;' | safe | striptags }}", "{{ 'http://a.de' | urlize }}", "{{ {'a': 1} | tojson(indent=1) }}", "{{ 'é' | urlencode }}",
    "{{ strftime_now('%d %b %Y %Z') }}", "{{ [3, 1] | sort | random }}", "{{ {'a': 1} | xmlattr }}", "{{ 1.5 | round }}", "{{ '%s' | format(1) }}",
]  # fmt: skip


def test_a_process_that_runs_templates_can_open_and_start_nothing():
    for template in LATE:
        assert render_template(template, {})
    with pytest.raises(TextError, match="line 1: UndefinedError"):  # its traceback is looked at by what is loaded then
        render_template("{{ a.b.c }}", {})
    for worker in templates._idle:
        for what in ("NOFILE", "NPROC", "FSIZE", "CORE"):
            assert resource.prlimit(worker._process.pid, getattr(resource, f"RLIMIT_{what}")) == (0, 0)


def test_what_gets_out_of_the_sandbox_is_shut_in(tmp_path):
    """The same process, told to do what no template should be able to."""
    program = f"""
import sys
sys.path.insert(0, {str(Path(template_worker.__file__).parent)!r})
import os, runpy, socket, subprocess, template_worker
template_worker.compiler()
runpy.run_path({platform.__file__!r})["shut_in"]()
for attempt in (
    lambda: open("/etc/passwd"), lambda: open({str(tmp_path / "file")!r}, "w"), socket.socket, os.pipe, lambda: subprocess.run("/bin/true")
):
    try:
        attempt()
    except OSError:
        print("refused")
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert said.stdout.split() == ["refused"] * 5, said.stdout + said.stderr
    assert not list(tmp_path.iterdir())


def test_threads_render_beside_each_other():
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda i: render_template("{{ i }} " * 1000, {"i": i}), range(64)))
    assert found == [f"{i} " * 1000 for i in range(64)]
    assert 1 <= len(templates._idle) <= templates.MOST_IDLE


def test_a_process_that_was_killed_is_replaced():
    assert render_template("{{ 1 }}", {}) == "1"
    for worker in templates._idle:
        os.kill(worker._process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, worker._process.pid, os.WEXITED | os.WNOWAIT)
    assert render_template("{{ 2 }}", {}) == "2"


def test_a_forked_process_has_its_own():
    assert render_template("{{ 1 }}", {}) == "1"
    with warnings.catch_warnings(record=True) as said:  # what is not let go of says so as it is collected
        warnings.simplefilter("always")
        child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 1 if templates._idle or said else int(render_template("{{ n }}", {"n": 7}))
            templates._close_all()
        finally:
            os._exit(status)
    assert render_template("{{ 'a' * n }}", {"n": 9}) == "a" * 9
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_ctrl_c_ends_a_rendering(monkeypatch):
    monkeypatch.setattr(templates, "SECONDS", 60.0)  # of its own, which it does not come to
    workers = []
    take = templates._take
    monkeypatch.setattr(templates, "_take", lambda: workers.append(take()) or workers[-1])
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    with pytest.raises(KeyboardInterrupt):
        render_template(HOSTILE["nested ranges"], {})
    assert not workers[0].alive() and workers[0] not in templates._idle
    render_template("x", {})
    assert os.getpgid(templates._idle[0]._process.pid) != os.getpgid(0)  # a terminal's Ctrl-C does not end those kept


def test_without_jinja2_the_error_names_the_extra(tmp_path, monkeypatch):
    templates._close_all()
    elsewhere = [path for path in sys.path if not (Path(path or ".") / "jinja2").is_dir()]
    monkeypatch.setattr(sys, "path", elsewhere)
    with pytest.raises(TextError, match=r'needs jinja2 \(No module named .*\): pip install "fastdistill\[demo\]"'):
        render_template("x", {})
    (tmp_path / "jinja2.py").write_text("__version__ = '3.1.5'")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *elsewhere])
    with pytest.raises(TextError, match=r"needs jinja2 \(3\.1\.6 or newer, found 3\.1\.5\)"):
        render_template("x", {})


def test_without_an_interpreter_the_error_says_so(monkeypatch):
    templates._close_all()
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(TextError, match="process of its own, which cannot start"):
        render_template("x", {})


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", [object(), {1: {2: object()}}, deep(5000)], ids=["object", "within", "deep"])
def test_variables_that_are_no_plain_data_are_refused(value):
    with pytest.raises(ArgumentError, match="must be plain data"):
        render_template("x", {"value": value})
