"""Formulas of docs/*.md, as GitHub writes them (``$…$`` in a line, ``$$…$$`` apart), as MathML.

Markdown would read signs of a formula as its own, so a placeholder stands for each while a page is made.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

from latex2mathml.converter import convert

_CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_FORMULA = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+?)\$", re.DOTALL)
_PLACEHOLDER = re.compile(r"formula([bi])([A-Za-z0-9_-]+=*)end")


def with_placeholders(markdown: str) -> str:
    """The text with a placeholder for each formula outside of code."""
    parts = _CODE.split(markdown)
    return "".join(part if index % 2 else _FORMULA.sub(_placeholder, part) for index, part in enumerate(parts))


def restored(html: str) -> str:
    """The page with MathML for each placeholder."""
    return _PLACEHOLDER.sub(_mathml, html)


def formulas(markdown: str) -> list[str]:
    """The formulas of a text, in LaTeX."""
    outside = "".join(_CODE.split(markdown)[::2])
    return [(match["block"] or match["inline"]).strip() for match in _FORMULA.finditer(outside)]


def _placeholder(match: re.Match[str]) -> str:
    kind = "b" if match["block"] else "i"
    latex = (match["block"] or match["inline"]).strip()
    return f"formula{kind}{urlsafe_b64encode(latex.encode()).decode().rstrip('=')}end"


def _mathml(match: re.Match[str]) -> str:
    latex = urlsafe_b64decode(match[2] + "=" * (-len(match[2]) % 4)).decode()
    if match[1] == "i":
        return mathml(latex, display="inline")
    return f'<span style="display: block; overflow-x: auto">{mathml(latex, display="block")}</span>'  # for phones


def mathml(latex: str, display: str) -> str:
    """MathML of a formula.

    Raises:
        ValueError: a command is unknown to the converter, which would leave it as it stands.
    """
    found = convert(latex, display=display)
    if "\\" in found:
        raise ValueError(f"The formula {latex} has a command that latex2mathml does not know; write it otherwise.")
    return found
