"""What the site is made of, for MkDocs: the pages of the tree, files that they link to, and a page of docstrings for each module.

A page lies where it lies in the tree, so that a link leads where it leads in a checkout.  Nothing is listed here: pages are those that
docs/README.md leads to, in its order, and modules those that `docstrings.MODULES` finds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docstrings import MODULES, page_of, text_of
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
FIRST = ["README.md", "docs/README.md"]
LINK = re.compile(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's files stay; ours take the place of what MkDocs has found in its folder."""
    pages, linked = reachable()
    reference = {page_of(module): text_of(module) for module in MODULES}
    config.nav = navigation(pages, list(reference))
    return Files(
        [file for file in files if not Path(file.abs_src_path or "").is_relative_to(ROOT)]
        + [
            File(path, str(ROOT), config.site_dir, config.use_directory_urls)
            for path in [*pages, *linked, *config.extra_css]
        ]
        + [File.generated(config, path, content=text) for path, text in reference.items()]
    )


def reachable() -> tuple[list[str], list[str]]:
    """Pages that the index leads to, then those that others do, and the files that they link to or show."""
    pages, files = ["docs/README.md", "README.md", "CHANGELOG.md"], []
    for page in pages:
        for link in LINK.findall((ROOT / page).read_text("utf-8")):
            target = ((ROOT / page).parent / link).resolve()
            found = pages if target.suffix == ".md" else files
            if target.is_file() and str(target.relative_to(ROOT)) not in found:
                found.append(str(target.relative_to(ROOT)))
    return pages, files


def navigation(pages: list[str], reference: list[str]) -> list[Any]:
    """A section for each folder of pages, and one for the reference."""
    sections: dict[str, list[str]] = {"start": ["README.md"]}
    for page in pages:
        top, *folders = Path(page).parts[:-1] or ("",)
        title = "start" if page == "docs/README.md" else "more" if top != "docs" else folders[0] if folders else "pages"
        if page not in sections["start"]:
            sections.setdefault(title, []).append(page)
    more = sections.pop("more")
    return [{title: paths} for title, paths in {**sections, "reference": reference, "more": more}.items()]
