"""The reference of the package ``copl``, written from its signatures, docstrings and result types."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

import copl

FUNCTIONS: tuple[Callable[..., Any], ...] = (
    copl.open_study,
    copl.import_rows,
    copl.fit,
    copl.reward,
    copl.export,
    copl.export_model,
)
RESULTS = (copl.Imported, copl.SnapshotRecord, copl.RewardView, copl.ScoreRow, copl.ExportReport, copl.ExportedModel)
_SECTION = re.compile(r"^(Args|Returns|Raises):$", re.MULTILINE)
_ENTRY = re.compile(r"^    (\w[\w, ]*): ", re.MULTILINE)


def python_reference() -> str:
    """Markdown: a section for each function, then the fields of what they return and take."""
    parts = [_function(one) for one in FUNCTIONS]
    parts += ["## What they return", *(_fields(one) for one in RESULTS), "## What to export", _words(copl.Selection)]
    return "\n\n".join(parts)


def _function(function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    given = [str(one).replace("'", "") for one in signature.parameters.values()]
    star = next((i for i, one in enumerate(signature.parameters.values()) if one.kind is one.KEYWORD_ONLY), None)
    if star is not None:
        given.insert(star, "*")
    call = f"copl.{function.__name__}(\n" + "".join(f"    {one},\n" for one in given)
    code = f"```python\n{call}) -> {str(signature.return_annotation).strip(chr(39))}\n```"
    return f"## copl.{function.__name__}\n\n{code}\n\n{_words(function)}"


def _words(documented: Any) -> str:
    """A docstring as Markdown: prose, then a list of what goes in, what comes out and what is refused."""
    prose, *sections = _SECTION.split(inspect.getdoc(documented) or "")
    parts = [prose.strip()]
    for name, body in zip(sections[::2], sections[1::2], strict=True):
        if name == "Returns":
            parts.append("Returns: " + _joined(body))
        else:
            pieces = _ENTRY.split("\n" + body.strip("\n"))
            listed = [f"- `{names}`: {_joined(text)}" for names, text in zip(pieces[1::2], pieces[2::2], strict=True)]
            parts.append("\n".join(listed) if name == "Args" else "Raises:\n\n" + "\n".join(listed))
    return "\n\n".join(parts).replace("``", "`")


def _joined(text: str) -> str:
    return " ".join(textwrap.dedent(text).split())


def _fields(kind: type) -> str:
    """The fields of a dataclass as its source has them, without its methods."""
    source = textwrap.dedent(inspect.getsource(kind))
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    methods = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    ends = min((min([node.lineno, *(one.lineno for one in node.decorator_list)]) for node in methods), default=None)
    lines = source.splitlines()[tree.lineno - 1 : None if ends is None else ends - 1]
    return f"### {kind.__name__}\n\n```python\n" + "\n".join(lines).rstrip() + "\n```"
