#!/usr/bin/env bash
# The site of pages and docstrings builds without a warning, reads nothing from elsewhere, and describes every public name.
# It needs the extension built in place, and PyPI, for the packages of the extra `docs`.
. "$(dirname "$0")/common.sh"

"$PYTHON" -m venv "$work/environment"
of() { sed -n "s/^$1 = \[\(.*\)\]\$/\1/p" "$root/pyproject.toml" | grep -o '"[^"]*"' | tr -d '"'; }
mapfile -t packages < <(of dependencies; of docs)
"$work/environment/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}" >"$work/pip.out" 2>&1 || {
    echo "$(basename "$0"): PyPI gives no ${packages[*]}:" >&2
    tail -3 "$work/pip.out" >&2
    exit 77
}

cd "$root"
PYTHONPATH=$root PYTHONDONTWRITEBYTECODE=1 "$work/environment/bin/python" -m mkdocs build --strict --quiet -f docs/site/mkdocs.yml -d "$work/site"

# Scripts, styles and pictures come from the site alone.
elsewhere='(https?:)?//'
if grep -rohE "(<(script|img|iframe)[^>]* src|<link[^>]* href)=\"$elsewhere[^\"]*" "$work/site" --include='*.html' ||
    grep -rohE "(url\(|@import )[\"']?$elsewhere[^)]*" "$work/site" --include='*.css'; then
    echo "the site reads these from elsewhere" >&2
    exit 1
fi

PYTHONPATH=$root "$PYTHON" - "$work/site/docs/reference" <<'END'
import sys
from pathlib import Path

import fastdistill as fd

text = "".join(page.read_text("utf-8") for page in Path(sys.argv[1]).glob("*.html"))
modules = [fd, *(getattr(fd, name) for name in ("distill", "kernels", "show", "train", "transport", "unmask"))]
names = {name for module in modules for name in module.__all__}
missing = sorted(name for name in names if f"{name}</code>" not in text and f"fastdistill.{name}</h1>" not in text)
assert not missing, f"the site says nothing of {', '.join(missing)}"
print(len(names), "names on", len(list(Path(sys.argv[1]).parents[1].rglob("*.html"))), "pages")
END
du -sh "$work/site" | cut -f 1
