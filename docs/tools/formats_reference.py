"""The formats that the studio reads and writes, from its own tables of them."""

from __future__ import annotations

from copl_core.formats.exports import FORMATS as WRITTEN
from copl_core.formats.registry import FORMATS as READ


def formats_read() -> str:
    rows = [
        f"| `{one.name}` | {one.title.replace('|', '/')} | {one.needs} |"
        for one in sorted(READ, key=lambda one: one.name)
    ]
    return "\n".join(["| name | what it is | what a row needs |", "|---|---|---|", *rows])


def formats_written() -> str:
    rows = [
        f"| `{one.name}` | {one.title} | {_yes(one.lossless)} | {_yes(one.has_ties)} | {_yes(one.has_shares)} |"
        for one in WRITTEN.values()
    ]
    head = "| name | what it is | reads back equal | ties as such | shares of people |"
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def _yes(value: bool) -> str:
    return "yes" if value else "–"
