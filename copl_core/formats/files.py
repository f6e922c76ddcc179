"""Opening a file of pairs or labels: what it is, what will come in, what will not and why.

A file is read once before anything is imported.  So one that cannot be taken is refused in one sentence about the file,
and the report of what it holds is complete before the first row is stored.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from copl_core.formats import registry
from copl_core.formats.choices import CHOICES, plain
from copl_core.formats.containers import Container, Problems, Record, in_memory, open_container
from copl_core.formats.fields import OURS
from copl_core.formats.interface import Format, Sample
from copl_core.formats.leaks import of_own_split
from copl_core.formats.reading import Options, Reading, pair_digest
from copl_core.records import MOST_REASONS, CoplError, ImportRow, Kind, LeftOut, counted

_SAMPLE = 100  # records by which a format is recognised
_KEPT = 150_000_000  # characters of texts of a file that stay in memory, so that it is read only once
_MAP_HELP = "the file's name of a field (choice=winner), or its value for a choice (a=0); repeat for more"
_MOST_NAMES = 12  # fields that a refusal names
_LOOKS_LIKE = (  # what files of other kinds have, and what they are
    (("text", "label"), "a text with labels, as doccano and other classifiers have them"),
    (("text", "labels"), "a text with labels"),
    (("prompt", "completion", "label"), "one answer with a thumb up or down (unpaired preference, KTO)"),
    (("prompt", "completion"), "one answer per prompt, for supervised training"),
    (("instruction", "output"), "one answer per instruction, for supervised training"),
    (("messages",), "one conversation per row, for supervised training"),
    (("conversations",), "one conversation per row, for supervised training"),
)


@dataclass(frozen=True)
class Survey:
    """What a file holds, found by reading all of it."""

    rows: int  # records, taken or not
    pairs: int  # different pairs of answers
    labels: int
    users: int
    models: int  # of the users: language models
    by_models: int  # of the labels: those of language models
    skipped: LeftOut
    notes: tuple[str, ...]  # what was taken, but not as it stands there: the first ones
    n_notes: int
    ignored_fields: dict[str, int]  # fields that nothing is learned from, by how many rows have a value
    labelled_pairs: int = 0  # of the pairs: those with a label
    without_strength: int = 0  # of the labels: those that prefer an answer and say no strength

    @property
    def left_out(self) -> tuple[tuple[int, str], ...]:
        """The first (line or row, why) of those skipped."""
        return tuple(sorted(self.skipped.first))


@dataclass(frozen=True)
class OpenedFile:
    """A file that can be imported.

    Args:
        numbers: whether 1 and 2 name the answers in this file.
        kept: its rows, if their texts are short enough to stay in memory.
    """

    path: Path
    format: Format
    container: Container
    options: Options
    numbers: bool
    survey: Survey
    kept: tuple[ImportRow, ...] | None = field(default=None, repr=False)

    def rows(self) -> Iterator[ImportRow]:
        """The rows that can be taken, one at a time; a large file is read again."""
        if self.kept is not None:
            return iter(self.kept)
        return _rows(self.format, self.container, Reading(self.options, self.numbers))

    def on_strength(self) -> str:
        """What becomes of labels that say no strength; empty where all say one."""
        n = self.survey.without_strength
        if not n:
            return ""
        return (
            f"{counted(n, 'label')} {'says' if n == 1 else 'say'} no strength: it is stored as unknown, and training "
            "weighs such a label like “slightly better”."
        )

    def in_short(self, skipped: LeftOut, *, done: bool) -> str:
        """How many lines or rows are skipped, and what of the others; ``done``: the import is over."""
        unit = self.container.unit
        whole, part = skipped.whole, skipped.part
        were = ("was" if (whole or part) == 1 else "were") if done else "will be"
        counts = [counted(whole, unit)] if whole else []
        counts += [f"{part:,} in part" if whole else f"a part of {counted(part, unit)}"] if part else []
        facts = [f"{' and '.join(counts)} {were} skipped"] if counts else []
        if skipped.broken:
            facts.append(f"the {unit}s after the damage are missing")
        elif counts:
            facts.append(f"all other {unit}s {'were' if done else 'will be'} imported")
        return "; ".join(facts) + "."


def open_file(path: Path, options: Options | None = None, format_name: str | None = None) -> OpenedFile:
    """Recognise a file and read it once.

    Raises:
        CoplError: the file cannot be taken; one sentence says what it seems to be and what to do.
    """
    return _opened(open_container(Path(path)), options or Options(), format_name)


def open_rows(
    rows: Iterable[Mapping[str, Any]], options: Options | None = None, format_name: str | None = None
) -> OpenedFile:
    """Recognise rows that a program holds in memory, as those of a file; they are numbered from 1.

    Raises:
        CoplError: they cannot be taken.
    """
    return _opened(in_memory(rows), options or Options(), format_name)


def _opened(container: Container, options: Options, format_name: str | None) -> OpenedFile:
    path = container.path
    sample = _sample(container)
    _check_names(path, sample, options)
    if options.names:
        container, options = _renamed(container, options.names), replace(options, names={n: n for n in options.names})
        sample = _sample(container)
    found = _format(path, sample, options, format_name)
    reading, survey, kept = _survey(found, container, options)
    if reading.other_numbers:  # then 1 and 2 may be numbers of something else, too
        reading, survey, kept = _survey(found, container, options, numbers=False)
    _refuse(container, found, reading, survey)
    return OpenedFile(path, found, container, options, reading.numbers, survey, kept)


def fields_of(path: Path) -> list[str]:
    """Names of the fields in the first records of a file; those within an object by their path.

    Raises:
        CoplError: the file is missing, unreadable, empty, or of a kind that holds no records.
    """
    names: dict[str, None] = {}
    for record in _sample(open_container(Path(path))).records:
        for name, value in record.items():
            names[name] = None
            names |= dict.fromkeys(f"{name}.{inner}" for inner in value) if isinstance(value, dict) else {}
    return list(names)


def add_options(parser: ArgumentParser) -> None:
    """The options by which a terminal says what files do not say themselves: --format, --map and --annotator."""
    parser.add_argument("--format", metavar="F", help="name of the format, if the file is not recognised")
    parser.add_argument("--map", action="append", default=[], metavar="OURS=THEIRS", help=_MAP_HELP)
    parser.add_argument("--annotator", metavar="A", help="whose labels they are, where rows do not say it")


def read_options(maps: Iterable[str], annotator: str | None = None) -> Options:
    """What the user says, from ``OURS=THEIRS`` and ``CHOICE=VALUE`` words.

    Raises:
        CoplError: a word has another form, or names none of our fields and choices.
    """
    names: dict[str, str] = {}
    codes: dict[str, str] = {}
    for one in maps:
        ours, sign, theirs = one.partition("=")
        ours, theirs = ours.strip(), theirs.strip()
        if not sign or not theirs or ours not in (*OURS, *CHOICES):
            raise CoplError(
                f"--map got {one!r}; give one of our fields and the file's name for it, such as choice=winner, or a "
                f"choice and the file's value for it, such as a=0 (fields: {', '.join(OURS)}; choices: "
                f"{', '.join(CHOICES)})."
            )
        if ours in CHOICES:
            codes[plain(theirs)] = ours
        else:
            names[ours] = theirs
    return Options((annotator or "").strip() or None, names, codes)


def _at(fields: Mapping[str, Any], name: str) -> Any:
    """The value under a name, or under a path of names with dots."""
    if name in fields or "." not in name:
        return fields.get(name)
    value: Any = fields
    for part in name.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def _sample(container: Container) -> Sample:
    return Sample([record.fields for record in islice(container.read(LeftOut()), _SAMPLE)])


def _renamed(container: Container, names: Mapping[str, str]) -> Container:
    """The same records with fields under our names, as the user says; a field may lie within others."""

    def read(problems: Problems) -> Iterator[Record]:
        for record in container.read(problems):
            ours = {name: _at(record.fields, theirs) for name, theirs in names.items()}
            rest = {name: value for name, value in record.fields.items() if name not in names.values()}
            yield Record(record.number, {**rest, **{name: value for name, value in ours.items() if value is not None}})

    return replace(container, read=read)


def _format(path: Path, sample: Sample, options: Options, name: str | None) -> Format:
    if name:
        return registry.by_name(name)
    if {"response_a", "response_b", "choice"} & options.names.keys():
        return registry.by_name("own")
    found = registry.recognise(sample)
    if found is None and sample.records:
        raise CoplError(f"{path} {_what_it_holds(sample)}")
    return found or registry.by_name("own")


def _what_it_holds(sample: Sample) -> str:
    fields = sample.fields
    shown = ", ".join(fields[:_MOST_NAMES]) + (", …" if len(fields) > _MOST_NAMES else "")
    seems = next((kind for names, kind in _LOOKS_LIKE if sample.has(*names)), "")
    return (
        f"has no two answers to compare: its fields are {shown}{f' ({seems})' if seems else ''}; say which field "
        "holds what (--map prompt=… --map response_a=… --map response_b=… --map choice=…), or give a file "
        f"with {registry.by_name('own').needs}."
    )


def _check_names(path: Path, sample: Sample, options: Options) -> None:
    for ours, theirs in options.names.items():
        if sample.records and not any(_at(record, theirs) is not None for record in sample.records):
            raise CoplError(
                f"{theirs} is named as the field for {ours}, and the first rows of {path} have no value in it; their "
                f"fields are {', '.join(sample.fields[:_MOST_NAMES])}."
            )


def _rows(found: Format, container: Container, reading: Reading) -> Iterator[ImportRow]:
    if found.learns:
        found.learn(container.read(LeftOut()), reading)
    return found.read(reading.records(container), reading)


def _survey(
    found: Format, container: Container, options: Options, *, numbers: bool = True
) -> tuple[Reading, Survey, tuple[ImportRow, ...] | None]:
    skipped = LeftOut()
    reading = Reading(options, numbers, skipped)
    pairs: set[bytes] = set()
    labelled: set[bytes] = set()
    users: dict[str, Kind] = {}
    labels = by_models = without_strength = n_characters = 0
    kept: list[ImportRow] = []
    for row in _rows(found, container, reading):
        pairs.add(digest := pair_digest(row.prompt, row.response_a, row.response_b))
        n_characters += len(row.prompt) + len(row.response_a) + len(row.response_b)
        if n_characters <= _KEPT:
            kept.append(row)
        else:
            kept.clear()
        if row.choice is not None and row.annotator is not None:
            labels += 1
            labelled.add(digest)
            by_models += row.kind == Kind.MODEL
            without_strength += not row.strength_known
            users.setdefault(row.annotator, row.kind)
    split = tuple(of_own_split(kept))
    several = _several_pairs(reading)
    written = (f"{container.unit} {number}: {text}" for number, text in reading.notes.first)
    notes = chain(split, container.notes, written, several)
    n_notes = len(split) + len(container.notes) + reading.notes.n + len(several)
    survey = Survey(
        reading.rows,
        len(pairs),
        labels,
        len(users),
        sum(kind == Kind.MODEL for kind in users.values()),
        by_models,
        skipped,
        tuple(islice(notes, MOST_REASONS)),
        n_notes,
        dict(reading.ignored.most_common()),
        len(labelled),
        without_strength,
    )
    return reading, survey, tuple(kept) if n_characters <= _KEPT else None


def _several_pairs(reading: Reading) -> list[str]:
    """Notes on ids of pairs that the file gives to several."""
    several = {name: len(pairs) for name, pairs in reading.pairs_by_id.items() if len(pairs) > 1}
    return [
        f"pair_id {name} names {n} different pairs; each of them stays a pair of its own" for name, n in several.items()
    ]


def _refuse(container: Container, found: Format, reading: Reading, survey: Survey) -> None:
    """Refuse a file that would lose its labels, or that holds nothing.

    Raises:
        CoplError: one sentence about the file.
    """
    path = container.path
    if not survey.rows and not survey.left_out:
        raise CoplError(f"{path} has no row; give a file with pairs or labels in it.")
    if reading.unknown_guesses:
        name, value = next(iter(reading.unknown_guesses.items()))
        raise CoplError(
            f"{path} may hold its choices in the field {name}, but {value} names neither answer; say which field "
            f"holds the choice (--map choice={name}) and what a value means (--map a={value})."
        )
    if not survey.labels and reading.without_annotator:
        raise CoplError(
            f"{path} ({_small(found.title)}) says which answer was preferred, and not by whom; "
            "name the annotator (add --annotator NAME), or the field that does (--map annotator=THEIRS)."
        )
    if not survey.labels and (reading.without_choice or reading.maybe_choices):
        raise CoplError(f"{path} {_lost_choices(found, reading)}")
    if not survey.pairs:
        if not survey.left_out:
            raise CoplError(
                f"{path} ({_small(found.title)}) has no prompt with two answers to compare, so nothing is imported; "
                "give a file with several answers to a prompt."
            )
        number, reason = survey.left_out[0]
        raise CoplError(
            f"{path} has no valid line, so nothing is imported; the first reason is in {container.unit} {number}: "
            f"{reason}; {_small(found.title)} needs {found.needs}."
        )


def _small(title: str) -> str:
    """A title within a sentence."""
    return title[0].lower() + title[1:]


def _lost_choices(found: Format, reading: Reading) -> str:
    if not found.choice_is_a_field:
        return (
            f"holds no choice that is understood; {_small(found.title)} needs {found.needs}; if a value means one of "
            "the answers, say which (--map a=1 --map b=2)."
        )
    names = [name for name, _ in reading.maybe_choices.most_common(3)]
    names = names or [name for name in reading.ignored if name != "id"][:3]
    guess = names[0] if names else "THEIRS"
    who = "names annotators and no choice" if reading.without_choice else "has no field named choice"
    maybe = f" (it may be in {' or '.join(names)})" if names else ""
    return f"{who}{maybe}; say which field holds the choice (--map choice={guess})."
