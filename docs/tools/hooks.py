"""What mkdocs does on top of turning docs/*.md into pages.

Pictures are those of the README, where they lie.  The notebook, the reference of ``copl`` and that of the server are
written from their sources.  Formulas become MathML here, so that a reader's browser fetches nothing from another site;
a build with a page that would do so fails.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from formats_reference import formats_read, formats_written
from formulas import restored, with_placeholders
from http_reference import http_reference
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from notebook_page import as_markdown
from python_reference import python_reference

ROOT = Path(__file__).resolve().parents[2]
SCREENS = "tests/e2e/screens"  # as docs/*.md reach it: ../tests/e2e/screens/label.png
WRITTEN = {
    "<!-- the formats that are read -->": formats_read,
    "<!-- the formats that are written -->": formats_written,
    "<!-- the reference of copl -->": python_reference,
    "<!-- the reference of the server -->": http_reference,
}
_FETCHED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?https?:|<link\b[^>]*\bhref=[\"']?https?:[^>]*>")
_HARMLESS = re.compile(r"rel=[\"']?(?:canonical|next|prev)\b")


def on_files(files: Any, config: Any) -> Any:
    for path in sorted((ROOT / SCREENS).iterdir()):
        files.append(File.generated(config, f"pictures/{path.name}", abs_src_path=str(path)))
    text = as_markdown((ROOT / "docs" / "notebook.ipynb").read_text())
    files.append(File.generated(config, "notebook.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    for mark, written in WRITTEN.items():
        if mark in markdown:
            markdown = markdown.replace(mark, written())
    return with_placeholders(markdown.replace(f"../{SCREENS}/", "pictures/"))


def on_page_content(html: str, **_: Any) -> str:
    return restored(html)


def on_post_build(config: Any) -> None:
    for path in Path(config["site_dir"]).rglob("*.html"):
        for match in _FETCHED.finditer(path.read_text()):
            if not _HARMLESS.search(match.group()):
                raise PluginError(f"{path.name} fetches from another site: {match.group()[:200]}")
