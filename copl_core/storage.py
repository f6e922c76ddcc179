"""The storage that all machines of an installation share: a folder, or any address of fsspec (``COPL_STORAGE``).

fsspec comes with torch.  What an address needs beyond it (s3fs for s3, gcsfs for gs, adlfs for az) is named by the
sentence that misses it.  Credentials come from where these packages look for them.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from copl_core.records import CoplError

PAUSES = (1.0, 4.0)  # seconds before each retry
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
_LOCAL = ("", "file", "local")
_REASON = 200  # characters of another program's words in a sentence
MARK = "copl-storage.json"  # at the root of a storage that is in use
_PASSWORD = re.compile(r"[^\s/\"'()=@]+(?::|%3a)[^\s/\"'()@]+?(?:@|%40)", re.IGNORECASE)
_QUERY = re.compile(r"\?[\w.%-]+=[^\s\"')]*")
log = logging.getLogger("copl")
T = TypeVar("T")


class StorageError(CoplError):
    """The storage is unreachable, full or refuses; a later try may succeed."""


class DamagedFile(CoplError):
    """A stored file differs from what was written."""


class Storage:
    """Files by name below an address.  Safe to share between threads.

    Its methods raise what the package of the address raises; ``attempt`` turns that into a sentence.

    Args:
        address: a folder from the root, or ``protocol://…``.

    Raises:
        CoplError: the protocol is unknown, its package is not installed, or the address cannot be read.
    """

    def __init__(self, address: str) -> None:
        self.address = without_secrets(address).rstrip("/")
        self._files, self._root = _open(address, self.address)

    @property
    def is_folder(self) -> bool:
        return getattr(self._files, "local_file", False)

    def path(self, name: str) -> str:
        """Where a file lies, as the file system names it."""
        return f"{self._root.rstrip('/')}/{name}"

    def put(self, files: Mapping[str, Path]) -> None:
        """Write local files under their names."""
        self._files.put([str(file) for file in files.values()], [self.path(name) for name in files])

    def get(self, files: Mapping[str, Path]) -> None:
        """Read stored files into local ones, whose folders exist."""
        self._files.get([self.path(name) for name in files], [str(file) for file in files.values()])

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """The contents of the files among ``names`` that exist."""
        paths = {self.path(name): name for name in names}
        found = self._files.cat(list(paths), on_error="omit") if paths else {}
        if isinstance(found, bytes):  # of a single file
            return {next(iter(paths.values())): found}
        return {paths[path]: content for path, content in found.items()}

    def sizes(self, below: str) -> dict[str, int]:
        """Name → bytes of every file below a folder; empty where there is none."""
        self._files.invalidate_cache()
        start = len(self.path(""))
        found = self._files.find(self.path(below), detail=True)
        return {path[start:]: facts["size"] for path, facts in found.items()}

    def changed(self, name: str) -> datetime:
        """When a file was written."""
        return self._files.modified(self.path(name))

    def remove(self, name: str, *, folder: bool = False) -> None:
        """Remove a file, or a folder with all its files; nothing happens where there is none."""
        try:
            self._files.rm(self.path(name), recursive=folder)
        except FileNotFoundError:
            pass


class Marks(Protocol):
    """(the mark of the storage of a database, empty where it has none; whether a storage has it), as the database keeps
    them (``Store.storage_mark``).
    """

    def __call__(self, *, make: bool = False, left: bool = False) -> tuple[str, bool]: ...


class Presence:
    """Whether the storage is there, and is that of this database: another bucket, or a folder below which nothing is
    mounted, looks like a new one.

    The first use leaves the mark of the database at its root; the home remembers the address, too.  Where a mark is
    missed or is another one, nothing is written or read.

    Args:
        remembered: the file in the home that lists the addresses that were used.
        marks: of the database; None: nobody knows one.
    """

    def __init__(self, storage: Storage, remembered: Path, marks: Marks | None = None) -> None:
        self.storage, self.remembered = storage, remembered
        self._marks: Marks = marks or _no_marks

    def check(self) -> bool:
        """Whether a mark is there.

        Raises:
            StorageError: it is the mark of another database, or it is not there and this database or this home has used
                the storage before.
        """
        found, (own, is_used) = self._found(), self._marks()
        if found and found != own:
            raise StorageError(
                f"{self.storage.address} is not the storage of this database, since {MARK} there has another mark; "
                "correct COPL_STORAGE or COPL_DATABASE_URL; `copl storage --begin` gives it to this database."
            )
        if found is None and is_used:
            raise StorageError(
                f"{self.storage.address} is not the storage of this database, since {MARK} is not in it; mount it, or "
                "correct COPL_STORAGE; `copl storage --begin` begins a new storage there."
            )
        if found is None and self.storage.address in self._addresses():
            raise StorageError(
                f"{self.storage.address} is not the storage that this home has used, since {MARK} is not in it; mount "
                "it, or correct COPL_STORAGE; `copl storage --begin` begins a new storage there."
            )
        return found is not None

    def use(self, *, to_write: bool) -> None:
        """Check it, remember it, and leave the mark if something is to be written.

        Raises:
            StorageError: as ``check``.
        """
        marked = self.check()
        if to_write:
            self._leave_mark()
        if to_write or marked:
            self._remember()

    def begin(self) -> None:
        """Let this database, and no other, use what lies there, which may be empty, from now on."""
        self._leave_mark()
        self._remember()

    def _found(self) -> str | None:
        """The mark that is there, empty if an earlier version left it; None where there is none."""
        content = self.storage.read([MARK]).get(MARK)
        if content is None:
            return None
        try:
            return str(json.loads(content).get("mark", ""))
        except (ValueError, AttributeError):
            return ""

    def _leave_mark(self) -> None:
        """A kill in between leaves a mark that the database knows: it has it before the storage does."""
        own, is_used = self._marks(make=True)
        if self._found() != own:
            with tempfile.TemporaryDirectory() as folder:
                (file := Path(folder) / MARK).write_text(json.dumps({"made_by": "copl-studio", "mark": own}) + "\n")
                self.storage.put({MARK: file})
        if not is_used:
            self._marks(left=True)

    def _remember(self) -> None:
        known = self._addresses()
        if self.storage.address not in known:
            self.remembered.parent.mkdir(parents=True, exist_ok=True)
            self.remembered.write_text("".join(f"{one}\n" for one in (*known, self.storage.address)))

    def _addresses(self) -> list[str]:
        return self.remembered.read_text().splitlines() if self.remembered.is_file() else []


def _no_marks(*, make: bool = False, left: bool = False) -> tuple[str, bool]:
    return "", False


def storage_of(address: str) -> Storage | None:
    """The storage of an installation; None where each machine keeps what it makes."""
    return Storage(address) if address else None


def attempt(what: str, act: Callable[[], T], advice: str, pauses: tuple[float, ...] = PAUSES) -> T:
    """The result of ``act``, which is tried again after each pause.

    Args:
        what: the beginning of the sentence, such as "Snapshot v0003 cannot be put into s3://bucket".

    Raises:
        StorageError: the last try failed, or there are no rights.
        CoplError: as ``act`` raises it.
    """
    for pause in (*pauses, None):
        try:
            return act()
        except StorageError:
            raise
        except Exception as problem:  # every package has errors of its own
            if pause is None or isinstance(problem, PermissionError):
                if isinstance(problem, CoplError):
                    raise
                raise StorageError(f"{what} ({_reason(problem)}); {advice}.") from problem
            log.warning("%s yet: %s", what, _reason(problem))
            time.sleep(pause)
    raise AssertionError  # the last pause is None


def _reason(problem: Exception) -> str:
    if isinstance(problem, PermissionError):
        return f"no rights: {_words(problem)}; give the credentials of this machine access to it"
    return _words(problem)


def _words(problem: Exception) -> str:
    found = " ".join(str(getattr(problem, "strerror", None) or problem).split()) or type(problem).__name__
    return without_secrets(found).rstrip(".")[:_REASON]


def without_secrets(words: str) -> str:
    """Without the ``name:password@`` and the ``?key=value`` of addresses, which may be encoded for URLs."""
    return _QUERY.sub("", _PASSWORD.sub("", re.sub(r"//[^/@\s]*@", "//", words)))


def _open(address: str, shown: str) -> tuple[Any, str]:
    """(the file system of an address, its path there)."""
    protocol = address.partition("://")[0] if "://" in address else ""
    options = {"auto_mkdir": True} if protocol in _LOCAL else {}
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(address, use_listings_cache=False, **options)
    except ImportError as problem:
        package = _PACKAGES.get(protocol)
        needed = f'install "copl-studio[s3]", or {package}' if package == "s3fs" else f"install {package or 'it'}"
        raise CoplError(
            f"COPL_STORAGE is {shown!r}, and the package that opens {protocol}:// is not installed "
            f"({_words(problem)}); {needed}, or choose another address."
        ) from None
    except ValueError as problem:
        raise CoplError(
            f"COPL_STORAGE is {shown!r}, which no package opens ({_words(problem)}); give a folder from the root, such "
            "as /data/copl, or an address such as s3://bucket/copl, gs://bucket/copl or az://container/copl."
        ) from None
    except Exception as problem:
        raise CoplError(
            f"COPL_STORAGE is {shown!r}, which cannot be opened ({_words(problem)}); correct the address or its "
            "credentials."
        ) from None
