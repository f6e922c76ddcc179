"""README and documentation: links lead somewhere, pictures are there, commands and code are understood."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

import copl
from copl_core.__main__ import _parser
from copl_core.config import Settings
from copl_core.formats import exports, registry
from copl_core.serving.openapi import DOCUMENT

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]}
WRITTEN = {"notebook.md"}  # by the build, from a source
_LINK = re.compile(r"!?\[(?P<words>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_CODE = re.compile(r"^ *```(?P<kind>\w*)\n(?P<text>.*?)^ *```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^(?:\S+=\S+ )?(?:\.venv/bin/python -m copl_core|copl) (.+)")

sys.path.append(str(DOCS / "tools"))  # as mkdocs does for its hooks
from formats_reference import formats_read, formats_written  # noqa: E402
from formulas import formulas, mathml  # noqa: E402
from http_reference import http_reference  # noqa: E402
from python_reference import FUNCTIONS, python_reference  # noqa: E402


def code(text: str, kind: str) -> list[str]:
    return [match["text"] for match in _CODE.finditer(text) if match["kind"] == kind]


def commands(text: str) -> list[str]:
    """Every command of a page, in blocks and within lines, without its comment."""
    lines = "".join(code(text, "sh")).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`((?:python -m copl_core|copl) [^`…]+)`", text)
    found = (_COMMAND.match(line.strip().replace("`python", "python")) for line in lines)
    return [match[1].partition(" #")[0].partition(" > ")[0] for match in found if match and match[1][0] != "…"]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as mkdocs and GitHub make them; those of written sections too."""
    for mark, written in (("the reference of the server", http_reference), ("the reference of copl", python_reference)):
        text = text.replace(f"<!-- {mark} -->", written() if f"<!-- {mark} -->" in text else "")
    headings = re.findall(r"^#+ (.+)$", _CODE.sub("", text), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_picture_of_a_page_is_there(page):
    folder = (ROOT / page).parent
    wrong = []
    for match in _LINK.finditer(_CODE.sub("", PAGES[page])):
        path, _, anchor = match["target"].partition("#")
        if "://" in path or path in WRITTEN:
            continue
        target = (folder / path) if path else ROOT / page
        there = target.is_file() and (not anchor or anchor in anchors(target.read_text()))
        wrong += [] if there else [match["target"]]
    assert wrong == []


def test_every_page_is_in_the_menu_once():
    menu = [path for entry in yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"] for path in entry.values()]
    assert sorted(menu) == sorted({path.name for path in DOCS.glob("*.md")} | WRITTEN)


def test_every_page_of_the_app_has_a_section_with_its_picture():
    titles = set(re.findall(r'\btitle="([^"]+)"', (ROOT / "streamlit_app.py").read_text())) - {"Not open to you"}
    sections = re.split(r"^## ", PAGES["docs/pages.md"], flags=re.MULTILINE)[1:]
    pictured = {one.partition("\n")[0] for one in sections if "](../tests/e2e/screens/" in one}
    assert pictured == titles


@pytest.mark.parametrize(("page", "command"), [(page, one) for page, text in PAGES.items() for one in commands(text)])
def test_every_command_is_understood(page, command):
    _parser().parse_args(shlex.split(command))


def test_every_target_of_make_that_is_named_is_one():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for text in PAGES.values() for name in re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE)}
    assert named and named <= targets


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if "import copl" in text])
def test_the_code_for_python_calls_copl_as_it_is(page):
    calls = [node for text in code(PAGES[page], "python") for node in ast.walk(ast.parse(text))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
             and isinstance(node.func.value, ast.Name) and node.func.value.id == "copl"]  # fmt: skip
    assert calls
    for call in calls:
        keywords = {str(one.arg): None for one in call.keywords}
        inspect.signature(getattr(copl, call.func.attr)).bind(*call.args, **keywords)


def test_the_table_of_settings_is_the_settings():
    listed = re.findall(r"^\| `(COPL_\w+)` \| (.*?) \| .+ \|$", PAGES["docs/deployment.md"], re.MULTILINE)
    true = [
        (f"COPL_{spec.name.upper()}", f"`{spec.default}`" if spec.default != "" else "") for spec in fields(Settings)
    ]
    assert [(name, value.strip()) for name, value in listed] == true


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if formulas(text)])
def test_every_formula_becomes_mathml(page):
    assert all("<math" in mathml(latex, "block") for latex in formulas(PAGES[page]))


def test_a_formula_that_nothing_knows_is_refused():
    assert formulas("`$no$` and $x_1$ and\n\n$$\\frac{a}{b}$$\n") == ["x_1", r"\frac{a}{b}"]
    with pytest.raises(ValueError, match="does not know"):
        mathml(r"\nosuch x", "inline")


def test_what_the_build_writes_names_every_format_address_and_argument():
    read, written, python, http = formats_read(), formats_written(), python_reference(), http_reference()
    assert all(f"| `{one.name}` |" in read for one in registry.FORMATS)
    assert all(f"| `{name}` |" in written for name in exports.FORMATS)
    assert all(f"{method.upper()} {path}" in http for path, methods in DOCUMENT["paths"].items() for method in methods)
    for function in FUNCTIONS:
        section = python.partition(f"## copl.{function.__name__}\n")[2].partition("\n## ")[0]
        assert all(f"    {name}: " in section for name in inspect.signature(function).parameters)
