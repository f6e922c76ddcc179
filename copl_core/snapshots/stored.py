"""The snapshots of one study in the storage that all machines share (``copl_core.storage``).

Below the address, ``snapshots/<study>/<version>/`` holds the same files as the folder of a version on disk.  The
manifest goes up last and is removed first: a version that has one is whole.  It holds the SHA-256 of every other file,
and no byte is used before its digest was checked.  ``<study>`` names the id and the time at which the study was made,
so installations that share an address by mistake do not meet.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from secrets import token_hex

from copl_core.records import CoplError, StudyRecord
from copl_core.snapshots.snapshot import FETCHING, Snapshot, digest_of, flush, set_aside
from copl_core.storage import PAUSES, DamagedFile, Presence, Storage, attempt

LEFT_SECONDS = 3600.0  # after which a version without a row in the database belongs to a trainer that was killed
_MANIFEST = "manifest.json"
_VERSION = re.compile(r"v\d+")


class StoredSnapshots:
    """The versions of a study in a storage.  Every method raises ``StorageError`` where the storage fails.

    Args:
        presence: checked before a version is written or read.
    """

    def __init__(
        self,
        storage: Storage,
        study: StudyRecord,
        pauses: tuple[float, ...] = PAUSES,
        *,
        presence: Presence | None = None,
    ) -> None:
        self.presence = presence
        self.storage, self.folder, self.pauses = storage, f"snapshots/{key_of_study(study)}", pauses

    @property
    def address(self) -> str:
        return self.storage.address

    def put(self, snapshot: Snapshot) -> None:
        """Store a whole version; what a killed trainer left under its name is replaced."""
        attempt(
            f"Snapshot {snapshot.version} cannot be put into {self.address}",
            lambda: self._put(snapshot),
            "free some space there or make it reachable and writable, then start the fit again; the champion stays",
            self.pauses,
        )

    def fetch(self, version: str, root: Path, manifest: str | None = None, *, replace: bool = False) -> None:
        """Write a version to its folder below ``root``, whole or not at all.

        Args:
            manifest: SHA-256 of the version's manifest; None: not known.
            replace: what lies in the folder is damaged.

        Raises:
            DamagedFile: a file differs from its digest, at a second try too.
        """
        attempt(
            f"Snapshot {version} cannot be fetched from {self.address}",
            lambda: self._fetch(version, root, manifest, replace),
            "make it reachable, or choose another snapshot as champion on the training page",
            self.pauses[:1],
        )

    def versions(self) -> dict[str, bool]:
        """Version → whether it is whole."""
        names = attempt(
            f"The snapshots in {self.address} cannot be listed",
            lambda: list(self.storage.sizes(self.folder)),
            "make it reachable",
            self.pauses[:1],
        )
        own = [name.removeprefix(f"{self.folder}/").partition("/") for name in names]
        whole = {version for version, _, name in own if name == _MANIFEST}
        return {version: version in whole for version, _, _ in own if _VERSION.fullmatch(version)}

    def manifests(self, versions: Iterable[str]) -> dict[str, dict]:
        """The manifests of the versions that are there and can be read."""
        found = attempt(
            f"The manifests of snapshots in {self.address} cannot be read",
            lambda: self.storage.read([self._name(version, _MANIFEST) for version in versions]),
            "make it reachable",
            self.pauses[:1],
        )
        return {name.split("/")[-2]: content for name, content in map(_parsed, found.items()) if content}

    def remove(self, version: str) -> None:
        attempt(
            f"Snapshot {version} cannot be removed from {self.address}",
            lambda: self._remove(version),
            "remove it by hand",
            self.pauses[:1],
        )

    def check_presence(self) -> None:
        """
        Raises:
            StorageError: the storage that this home has used is not there.
        """
        if self.presence:
            self.presence.check()

    def sweep(self, known: set[str], *, left_seconds: float = LEFT_SECONDS) -> list[str]:
        """Remove what killed trainers left: versions without a row in the database that nobody is uploading.

        Args:
            known: the versions in the database.
        """
        removed = []
        for version in sorted(self.versions().keys() - known):
            if self._age(version) >= timedelta(seconds=left_seconds):
                self.remove(version)
                removed.append(version)
        return removed

    def _put(self, snapshot: Snapshot) -> None:
        version, files = snapshot.version, snapshot.manifest["files"]
        if self.presence:
            self.presence.use(to_write=True)
        self._remove(version)
        self.storage.put({self._name(version, name): snapshot.folder / name for name in files})
        sizes = self.storage.sizes(self._name(version))
        cut = [name for name, facts in files.items() if sizes.get(self._name(version, name)) != facts["bytes"]]
        if cut:
            raise OSError(f"{cut[0]} is not there as it was sent")
        self.storage.put({self._name(version, _MANIFEST): snapshot.folder / _MANIFEST})
        if self.storage.is_folder:
            flush(Path(self.storage.path(self._name(version))))

    def _fetch(self, version: str, root: Path, manifest: str | None, replace: bool) -> None:
        aside = root / f"{FETCHING}{version}-{os.getpid()}-{token_hex(4)}"
        if self.presence:
            self.presence.use(to_write=False)
        try:
            content = self.storage.read([self._name(version, _MANIFEST)]).get(self._name(version, _MANIFEST))
            if content is None:
                raise FileNotFoundError("it is not there")
            if manifest is not None and hashlib.sha256(content).hexdigest() != manifest:
                raise self._damaged(version, _MANIFEST)
            facts = self._files_of(version, content)
            for name in facts:
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
            self.storage.get({self._name(version, name): aside / name for name in facts})
            for name, one in facts.items():
                if digest_of(aside / name) != one["sha256"]:
                    raise self._damaged(version, name)
            (aside / _MANIFEST).write_bytes(content)
            flush(aside)
            if replace:
                set_aside(root, version)
            _rename(aside, root / version)
        finally:
            shutil.rmtree(aside, ignore_errors=True)  # exists only if something went wrong

    def _files_of(self, version: str, manifest: bytes) -> dict[str, dict]:
        """The files that a manifest names, all of them inside the version's folder."""
        try:
            facts = json.loads(manifest)["files"]
            if all(re.fullmatch(r"[0-9a-f]{64}", one["sha256"]) and _is_inside(name) for name, one in facts.items()):
                return facts
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise self._damaged(version, _MANIFEST)

    def _damaged(self, version: str, name: str) -> CoplError:
        return DamagedFile(
            f"Snapshot {version} in {self.address} is damaged: {name} differs from what was written; choose another "
            "snapshot as champion on the training page, or start a new fit."
        )

    def _remove(self, version: str) -> None:
        self.check_presence()
        self.storage.remove(self._name(version, _MANIFEST))
        self.storage.remove(self._name(version), folder=True)

    def _age(self, version: str) -> timedelta:
        names = self.storage.sizes(self._name(version))
        newest = max((self.storage.changed(name) for name in names), default=datetime.now(UTC))
        return datetime.now(UTC) - (newest if newest.tzinfo else newest.replace(tzinfo=UTC))

    def _name(self, version: str, name: str = "") -> str:
        return f"{self.folder}/{version}/{name}".rstrip("/")


def key_of_study(study: StudyRecord) -> str:
    """The name of a study's folders in a storage."""
    return f"{study.id}-{study.created_at:%Y%m%dT%H%M%S%f}" if study.created_at else str(study.id)


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and name == str(path) and name not in (".", _MANIFEST)


def _parsed(entry: tuple[str, bytes]) -> tuple[str, dict | None]:
    try:
        found = json.loads(entry[1])
    except ValueError:
        return entry[0], None
    return entry[0], found if isinstance(found, dict) else None


def _rename(aside: Path, target: Path) -> None:
    try:
        os.rename(aside, target)
    except OSError:
        if not (target / _MANIFEST).is_file():  # else another process has fetched it meanwhile
            raise
