"""A download that resumes where it stopped, after cut connections and killed processes alike."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

Say = Callable[[str], object]
CHUNK = 1 << 18  # most bytes between two writes
PATIENCE = 60.0  # seconds without a byte before a connection counts as cut
ATTEMPTS = 4  # consecutive connections without data before the download fails


def is_disk_error(error: BaseException) -> bool:
    """Whether the disk is full or not writable, which a new connection cannot repair."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def download(url: str, part: Path, title: str, say: Say, pause: float = 1.0) -> None:
    """Append to ``part`` until it is complete, over as many connections as it takes, as long as they bring data.

    Args:
        url: http, https or file.
        part: the partial file; what an earlier attempt of any process left there is kept and continued.
        title: the beginning of each progress message.
        say: prints a progress message for the user.
        pause: seconds before the first retry of a cut connection; doubled after each one that brings no data.

    Raises:
        OSError, http.client.HTTPException: the server refuses or cannot be reached, or the disk is full.
    """
    if url.startswith("file:"):
        shutil.copyfile(urllib.request.url2pathname(urllib.parse.urlsplit(url).path), part)
        return
    idle = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        problem: Exception = OSError("the connection was cut")
        try:
            if _one_connection(url, part, title, say):
                return
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise
            problem = error
        except (OSError, http.client.HTTPException) as error:
            if is_disk_error(error):
                raise
            problem = error
        idle = 0 if part.exists() and part.stat().st_size > before else idle + 1
        if idle >= ATTEMPTS:
            raise problem
        say(f"{title}: cut off ({getattr(problem, 'reason', None) or problem}), resuming where it stopped")
        time.sleep(pause * 2**idle)


def _one_connection(url: str, part: Path, title: str, say: Say) -> bool:
    """Whether ``part`` has as many bytes as the server announces, after one connection."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=PATIENCE, context=_certificates())
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: the server has no bytes after ours
            raise
        if error.headers.get("Content-Range", "").endswith(f"/{start}"):
            return True
        part.unlink()  # longer than the file, so not its beginning
        return False
    with response:
        if start and response.status != 206:  # a server without ranges sends the whole file again
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        _report(title, start, total, say, "resuming at" if start else "fetching,")
        with part.open("ab" if start else "wb") as file:
            reported = time.monotonic()
            while chunk := response.read1(CHUNK):
                file.write(chunk)
                if time.monotonic() - reported > 2:
                    reported = time.monotonic()
                    _report(title, file.tell(), total, say)
            return total is None or file.tell() == total


def _report(title: str, done: int, total: int | None, say: Say, verb: str = "") -> None:
    of = f" of {total / 1e6:.0f} MB ({100 * done / max(total, 1):.0f} %)" if total else " MB"
    say(f"{title}: {verb + ' ' if verb else ''}{done / 1e6:.0f}{of}")


def _certificates() -> ssl.SSLContext:
    """The certificates of the system and those that pip trusts, since some Python installations have none."""
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError, OSError):
        import certifi

        context.load_verify_locations(certifi.where())
    if extra := os.environ.get("PIP_CERT"):
        with contextlib.suppress(OSError):
            context.load_verify_locations(extra)
    return context
