"""All formats that labels are written in, by name."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from copl_core.formats import write_tables
from copl_core.formats.conversations import prompt_text, response_text
from copl_core.formats.own import whole, whole_folder, write_jsonl
from copl_core.formats.selection import Embed, Row, Selection, select
from copl_core.formats.write_argilla import records
from copl_core.formats.write_battles import battles
from copl_core.formats.write_trl import preferences
from copl_core.records import CoplError
from copl_core.turns import is_conversation, messages


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A format, as people choose it."""

    name: str
    title: str
    ending: str  # of a file's name; empty for a folder
    has_ties: bool = True
    lossless: bool = False  # reads back as the same labels
    has_shares: bool = False


FORMATS = {
    one.name: one
    for one in (
        ExportFormat("own", "Our own rows, as JSON lines", ".jsonl", lossless=True),
        ExportFormat("csv", "CSV, for spreadsheets", ".csv", lossless=True, has_shares=True),
        ExportFormat("parquet", "Parquet", ".parquet", lossless=True, has_shares=True),
        ExportFormat("trl", "TRL: prompt, chosen, rejected", ".jsonl", has_ties=False, has_shares=True),
        ExportFormat("trl-implicit", "TRL: chosen, rejected", ".jsonl", has_ties=False, has_shares=True),
        ExportFormat("hf", "A folder of the datasets library", "", lossless=True, has_shares=True),
        ExportFormat("battles", "Battles, as LMArena publishes them", ".jsonl"),
        ExportFormat("argilla", "Argilla records", ".json"),
    )
}


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written."""

    format: str
    paths: tuple[Path, ...]  # the second one, if there is one, holds ties
    n_labels: int  # read
    n_written: int  # rows
    n_ties: int  # rows in the second file
    left_out: dict[str, int]  # why → number
    n_unknown: int = 0  # labels that a smallest margin has kept, since nobody gave their strength

    def sentences(self) -> list[str]:
        """Where the rows are, and why others are not, each in one sentence."""
        found = [f"{self.n_labels:,} labels: {self.n_written:,} rows written to {self.paths[0]}."]
        if self.n_ties:
            found.append(f"{self.n_ties:,} ties are apart, in {self.paths[1]}.")
        if self.n_unknown:
            found.append(f"{self.n_unknown:,} labels without a strength passed the smallest margin: nobody gave one.")
        return found + [f"{n:,} {why}: left out." for why, n in self.left_out.items()]

    def facts(self) -> dict[str, object]:
        """The same for programs; the shape stays."""
        files = [str(path) for path in self.paths]
        counts = {"labels": self.n_labels, "rows": self.n_written, "ties": self.n_ties}
        unknown = {"strength_unknown": self.n_unknown} if self.n_unknown else {}
        return {"format": self.format, "files": files, **counts, "left_out": self.left_out, **unknown}


def by_name(name: str) -> ExportFormat:
    if name not in FORMATS:
        raise CoplError(f"Labels are not written as {name!r}; choose one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def with_messages(row: Row) -> Row:
    """A row with its conversations as messages, as files of other tools have them.

    A text that only looks like a conversation stays a text, so that an import gives back what was exported.
    """
    names = [name for name in ("prompt", "response_a", "response_b") if is_conversation(row[name])]
    found = {name: messages(row[name]) for name in names}
    exact = {name: one for name, one in found.items() if _as_read(name, one) == row[name]}
    return row | exact if exact else row


def _as_read(name: str, found: list[dict[str, str]]) -> str:
    return prompt_text(found) if name == "prompt" else response_text(name, found)


def write_export(
    rows: Iterable[Row], name: str, path: Path, selection: Selection | None = None, embed: Embed | None = None
) -> ExportReport:
    """Write rows of ``Store.export`` in a format; ``embed`` is needed for a selection of diverse pairs.

    Raises:
        CoplError: there is no such format, it has no shares, or the file cannot be written.
    """
    form, selection = by_name(name), selection or Selection()
    if selection.shares and not form.has_shares:
        names = ", ".join(one.name for one in FORMATS.values() if one.has_shares)
        raise CoplError(f"The format {name} holds labels and no shares of people; choose one of {names}.")
    chosen = select(rows, selection, embed)
    left_out = dict(chosen.left_out)
    found, ties = chosen.rows, list[Row]()
    if not form.has_ties:
        tied = preferences(found, ties=selection.ties, implicit=name == "trl-implicit", plain=selection.plain)
        found, ties = tied.rows, tied.ties
        if tied.conversations:
            left_out["conversations, which are no plain texts"] = tied.conversations
        if selection.ties == "out" and tied.n_tied:
            left_out["ties"] = tied.n_tied
    elif name == "battles":
        found = list(battles(found))
    elif name == "argilla":
        found, repeated = records(found)
        if repeated:
            left_out["earlier answers of a person to the same pair"] = repeated
    paths = (path, *([_beside(path)] if ties else []))
    _write(form, found, path)
    if ties:
        _write(form, ties, paths[1])
    return ExportReport(name, paths, chosen.n_labels, len(found), len(ties), left_out, chosen.n_unknown)


def _beside(path: Path) -> Path:
    """labels.jsonl.gz → labels.ties.jsonl.gz"""
    stem, dot, ending = path.name.partition(".")
    return path.with_name(f"{stem}.ties{dot}{ending}")


def _write(form: ExportFormat, rows: list[Row], path: Path) -> None:
    if form.name == "csv":
        write_tables.write_csv(rows, path)
    elif form.name == "parquet":
        write_tables.write_parquet(rows, path)
    elif form.name == "hf":
        _write_folder(rows, path)
    elif form.name == "argilla":
        with whole(path) as target:
            target.write(json.dumps(rows, indent=1, ensure_ascii=False).encode() + b"\n")
    else:
        write_jsonl(map(with_messages, rows) if form.name == "own" else rows, path)


def _write_folder(rows: list[Row], path: Path) -> None:
    if path.exists():
        raise CoplError(f"{path} exists already; name a new folder.")
    with whole_folder(path) as aside:
        write_tables.write_folder(rows, aside)
