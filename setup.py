"""What pyproject.toml cannot say: the cffi module, its units compiled side by side and only once, and the abi3 tag."""

import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

# Free-threaded Pythons have no stable ABI.
limited = not sysconfig.get_config_var("Py_GIL_DISABLED")

UNIT_MEMORY = 300 * 1024  # kB that a compiler takes for the largest unit


def at_once(cores, meminfo):
    """How many units to compile side by side: one a core, as far as memory goes, which /proc/meminfo tells."""
    found = re.search(r"^MemAvailable: *(\d+) kB", meminfo, re.MULTILINE)
    return max(1, min(cores, int(found[1]) // UNIT_MEMORY)) if found else cores


def check_headers(compiler, folders):
    """End with what lacks and which package brings it, in place of a page of a compiler's words."""
    with tempfile.TemporaryDirectory() as place:
        probe = Path(place) / "probe.c"
        for header in ("stdlib.h", "Python.h"):
            probe.write_text(f"#include <{header}>\n")
            command = [*compiler, *(f"-I{folder}" for folder in folders), "-c", str(probe), "-o", f"{probe}.o"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                said = [line for line in done.stderr.splitlines() if "error" in line] or [
                    f"exit code {done.returncode}"
                ]
                packages = runpy.run_path("csrc/build_native.py")["PACKAGES"]
                sys.exit(
                    f"fastdistill is built with {header}, which {compiler[0]} does not compile ({said[0]}):{packages}"
                )


class BuildExtension(build_ext):
    """As many units at once as there are cores and memory for.  Objects are kept in build/, by all that they were made of: each install
    of pip builds anew, in temporary folders, and would compile everything again."""

    def build_extensions(self):
        check_headers(self.compiler.compiler_so, self.compiler.include_dirs)
        self.compile_some, self.compiler.compile = self.compiler.compile, self.compile_units
        super().build_extensions()

    def get_libraries(self, extension):
        """On Windows setuptools names the library of the Python that builds, python310, where the stable ABI is python3's."""
        named = super().get_libraries(extension)
        return [re.sub(r"^python3\d+$", "python3", library) for library in named] if limited else named

    def compile_units(self, sources, **options):
        kept = Path(__file__).resolve().parent / "build" / "objects"
        kept.mkdir(parents=True, exist_ok=True)
        version = subprocess.run([*self.compiler.compiler_so[:1], "--version"], capture_output=True).stdout
        read = b"".join(Path(path).read_bytes() for path in options["depends"])

        def object_of(source):
            given = {name: value for name, value in options.items() if name not in ("output_dir", "depends")}
            told = repr([sys.version, self.compiler.compiler_so, given])
            key = hashlib.sha256(b"\0".join([version, told.encode(), read, Path(source).read_bytes()])).hexdigest()
            return kept / f"{Path(source).stem}-{key[:32]}.o"

        objects = {source: object_of(source) for source in sources}

        def compile_one(source):
            (made,) = self.compile_some([source], **options)
            whole = objects[source].with_suffix(f".{os.getpid()}")  # on its file system: there at once, or not at all
            shutil.copyfile(made, whole)
            os.replace(whole, objects[source])
            for old in set(kept.glob(f"{Path(source).stem}-*")) - {objects[source]}:
                old.unlink(missing_ok=True)

        missing = [source for source in sources if not objects[source].exists()]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        meminfo, began = Path("/proc/meminfo"), time.monotonic()
        jobs = at_once(cores, meminfo.read_text() if meminfo.exists() else "")
        if missing:
            why = f"for {cores} cores there is too little memory" if jobs < cores else "half a minute on two cores"
            print(f"fastdistill: compiling {len(missing)} files of C, {jobs} at once; {why}", flush=True)
            with ThreadPoolExecutor(jobs) as pool:
                list(pool.map(compile_one, reversed(missing)))  # the levels, which take longest, first
            print(f"fastdistill: compiled in {time.monotonic() - began:.0f} s", flush=True)
        return [str(objects[source]) for source in sources]


# setup passes over what it does not know: a package without its C, and not a word.
if not entry_points(group="distutils.setup_keywords", name="cffi_modules"):
    sys.exit("fastdistill: cffi's metadata is missing where this is built: pip install cffi")

options = {"bdist_wheel": {"py_limited_api": "cp310"}} if limited else {}
if sys.platform == "win32":
    options["build_ext"] = {"compiler": "mingw32"}  # who is called as gcc is (csrc/build_native.py)

setup(
    cffi_modules=["csrc/build_native.py:ffi"],
    cmdclass={"build_ext": BuildExtension},
    options=options,
)
