"""A bundle: a whole study in one zip file that people can look into.

``manifest.json`` names the format and its version, the version of the tables, the study, when the bundle was made, and
of each member its bytes, SHA-256 and rows.  ``study.jsonl``, ``users.jsonl`` and so on hold one JSON object per row,
parents before children; ``snapshot/`` holds the files of the champion.  Nothing of a bundle is used before every
member has been compared with its digest, and no member is written under a name of its own choosing.
"""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

from copl_core.formats.containers import LINE_LIMIT
from copl_core.records import CoplError

FORMAT, VERSION = "copl-bundle", 1
MANIFEST, STUDY, SNAPSHOT = "manifest.json", "study.jsonl", "snapshot/"
_ROWS = re.compile(r"[a-z_]{1,40}\.jsonl")
_FILES = re.compile(r"snapshot/([a-z]+/){0,2}[\w-][\w.-]{0,80}")
_BLOCK = 2**20  # bytes read at once
_MANIFEST_BYTES = 16 * 2**20
_RATIO, _SMALL = 200, 64 * 2**20  # JSON lines shrink to a tenth; more than _SMALL bytes from a _RATIO-th are a trap
_LINE_BYTES = 4 * LINE_LIMIT
_UNREADABLE = (BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError, KeyError)


class BundleWriter:
    """Writes members one after the other, each in bounded memory; used in a ``with``, which ends an unfinished file.

    Args:
        stream: a file that is open for writing bytes.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._zip = ZipFile(stream, "w", ZIP_DEFLATED, compresslevel=6)
        self.members: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> BundleWriter:
        return self

    def __exit__(self, *failed: object) -> None:
        with suppress(OSError, ValueError):  # nothing where ``finish`` has closed it
            self._zip.close()

    def add_rows(self, part: str, rows: Iterable[dict[str, Any]]) -> None:
        count = 0

        def lines() -> Iterator[bytes]:
            nonlocal count
            for row in rows:
                count += 1
                yield _line(row)

        self._add(f"{part}.jsonl", lines())
        self.members[f"{part}.jsonl"]["rows"] = count

    def add_file(self, name: str, path: Path) -> None:
        with path.open("rb") as stream:
            self._add(name, iter(lambda: stream.read(_BLOCK), b""))

    def finish(self, facts: dict[str, Any]) -> None:
        """Write the manifest and the end of the file."""
        manifest = {"format": FORMAT, "version": VERSION, **facts, "members": self.members}
        self._zip.writestr(MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
        self._zip.close()

    def _add(self, name: str, blocks: Iterator[bytes]) -> None:
        digest, size = sha256(), 0
        with self._zip.open(name, "w", force_zip64=True) as member:
            for block in blocks:
                member.write(block)
                digest.update(block)
                size += len(block)
        self.members[name] = {"bytes": size, "sha256": digest.hexdigest()}


@dataclass(frozen=True, slots=True)
class Bundle:
    """An open bundle, whose members have been compared with their digests."""

    path: Path
    manifest: dict[str, Any]
    _zip: ZipFile

    @property
    def files(self) -> list[str]:
        """Names of the champion's files below ``snapshot/``; empty without a champion."""
        return [name.removeprefix(SNAPSHOT) for name in self.manifest["members"] if name.startswith(SNAPSHOT)]

    def study(self) -> dict[str, Any]:
        """The one row of the study itself."""
        rows = list(self._rows(STUDY))
        if len(rows) != 1 or not isinstance(rows[0].get("name"), str):
            raise _damaged(self.path, f"{STUDY} is not one row with a name")
        return rows[0]

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(part, row) of all other rows, in the order of the file.

        Raises:
            CoplError: a line is no JSON object.
        """
        for name in self.manifest["members"]:
            if not name.startswith(SNAPSHOT) and name != STUDY:
                part = name.removesuffix(".jsonl")
                yield from ((part, row) for row in self._rows(name))

    def extract(self, folder: Path) -> None:
        """Write the champion's files into a folder.

        Raises:
            CoplError: they cannot be written.
        """
        try:
            for name in self.files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with self._zip.open(SNAPSHOT + name) as member, (folder / name).open("xb") as target:
                    shutil.copyfileobj(member, target, _BLOCK)
        except OSError as error:
            raise CoplError(
                f"{folder} cannot be written ({error.strerror or error}), so nothing was restored; free some space."
            ) from error

    def _rows(self, name: str) -> Iterator[dict[str, Any]]:
        count = 0
        with self._zip.open(name) as member:
            while line := member.readline(_LINE_BYTES + 1):
                count += 1
                row = _json(line) if len(line) <= _LINE_BYTES else None
                if not isinstance(row, dict):
                    raise _damaged(self.path, f"line {count} of {name} is no JSON object")
                yield row
        if count != self.manifest["members"][name].get("rows"):
            raise _damaged(self.path, f"{name} has {count:,} rows and not those of its manifest")


@contextmanager
def open_bundle(path: Path, schema: str) -> Iterator[Bundle]:
    """Open a bundle after reading all of it once.

    Args:
        schema: the version of the tables here; a bundle of later ones is refused.

    Raises:
        CoplError: the file is missing, no bundle, damaged, changed, or of a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise CoplError(f"There is no file {path}; name a bundle that `backup` wrote.")
    try:
        packed = ZipFile(path)
    except PermissionError as error:
        raise CoplError(f"{path} cannot be read ({error.strerror}); name a file that you may read.") from None
    except _UNREADABLE:
        raise CoplError(f"{path} is no bundle, or is cut short; get the whole file that `backup` wrote.") from None
    with packed:
        manifest = _manifest(packed, path, schema)
        _check_members(packed, path, manifest["members"])
        yield Bundle(path, manifest, packed)


def _manifest(packed: ZipFile, path: Path, schema: str) -> dict[str, Any]:
    foreign = CoplError(f"{path} is a zip file and no bundle of a study; name a file that `backup` wrote.")
    try:
        with packed.open(MANIFEST) as member:
            found = _json(member.read(_MANIFEST_BYTES))
    except KeyError:
        raise foreign from None
    except _UNREADABLE:
        raise _damaged(path, f"its {MANIFEST} cannot be read") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise foreign
    version, tables, members = found.get("version"), found.get("schema"), found.get("members")
    if type(version) is not int or type(tables) is not str or not _are_members(members):
        raise _damaged(path, f"its {MANIFEST} lacks the version or the members")
    if version > VERSION or tables > schema:
        raise CoplError(
            f"{path} was made by a newer program (bundle {version}, tables {tables[:20]}; this one reads bundle "
            f"{VERSION}, tables {schema}); update this program, then restore."
        )
    return found


def _are_members(members: Any) -> bool:
    return isinstance(members, dict) and all(
        isinstance(own, dict) and type(own.get("bytes")) is int and type(own.get("sha256")) is str
        for own in members.values()
    )


def _check_members(packed: ZipFile, path: Path, members: dict[str, dict[str, Any]]) -> None:
    """Compare names, sizes and digests with the manifest."""
    names = [one.filename for one in packed.infolist()]
    if sorted(names) != sorted([MANIFEST, *members]):
        raise _damaged(path, "it has other members than its manifest names")
    if STUDY not in members:
        raise _damaged(path, f"it lacks {STUDY}")
    if odd := next((name for name in names if any(other.startswith(f"{name}/") for other in names)), None):
        raise _damaged(path, f"{odd[:60]} is a file and a folder")
    if odd := next((name for name in members if not _ROWS.fullmatch(name) and not _FILES.fullmatch(name)), None):
        raise _damaged(path, f"it has a member named {odd[:60]!r}")
    if sum(own["bytes"] for own in members.values()) > max(_SMALL, _RATIO * path.stat().st_size):
        raise _damaged(path, "it would become more than 200 times as large")
    for name, own in members.items():
        if packed.getinfo(name).file_size != own["bytes"] or _digest(packed, name) != own["sha256"]:
            raise _damaged(path, f"{name} is not as it was written")


def _digest(packed: ZipFile, name: str) -> str:
    """The SHA-256 of a member; empty where it cannot be read."""
    digest = sha256()
    try:
        with packed.open(name) as member:
            while block := member.read(_BLOCK):
                digest.update(block)
    except _UNREADABLE:
        return ""
    return digest.hexdigest()


def _line(row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError:  # half a character, which only an escape can write
        return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def _json(line: bytes) -> Any:
    """The value of a line; None where it is no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _damaged(path: Path, what: str) -> CoplError:
    return CoplError(f"{path} is damaged: {what}; nothing was restored; get the file again as `backup` wrote it.")
