"""A download that goes on where it stopped, over cut connections and killed processes alike."""

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
CHUNK = 1 << 18  # bytes at most between two writes
PATIENCE = 60.0  # seconds without a byte before a connection counts as cut
ATTEMPTS = 4  # connections in a row that bring nothing before we give up


def is_of_the_disk(error: BaseException) -> bool:
    """Whether the mishap is no room or no right to write here, which no other connection would mend."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def download(url: str, part: Path, title: str, say: Say, pause: float = 1.0) -> None:
    """Append to ``part`` until it is whole, over as many connections as it takes while they bring something.

    Args:
        url: http, https or file.
        part: what an earlier attempt, of this process or another, brought already is kept and continued.
        title: what the lines of progress begin with.
        say: takes a line of progress for a person.
        pause: seconds before the first retry of a cut connection; doubled at each that brings nothing.

    Raises:
        OSError, http.client.HTTPException: the server refuses, cannot be reached, or the disk takes no more.
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
            if is_of_the_disk(error):
                raise
            problem = error
        idle = 0 if part.exists() and part.stat().st_size > before else idle + 1
        if idle >= ATTEMPTS:
            raise problem
        say(f"{title}: cut off ({getattr(problem, 'reason', None) or problem}), going on from where it stopped")
        time.sleep(pause * 2**idle)


def _one_connection(url: str, part: Path, title: str, say: Say) -> bool:
    """True once ``part`` holds as many bytes as the server says there are."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=PATIENCE, context=_certificates())
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing after what we have
            raise
        if error.headers.get("Content-Range", "").endswith(f"/{start}"):
            return True
        part.unlink()  # longer than the file: not its beginning
        return False
    with response:
        if start and response.status != 206:  # a server without ranges sends all of it again
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        _note(title, start, total, say, "resuming at" if start else "fetching,")
        with part.open("ab" if start else "wb") as file:
            told = time.monotonic()
            while chunk := response.read1(CHUNK):
                file.write(chunk)
                if time.monotonic() - told > 2:
                    told = time.monotonic()
                    _note(title, file.tell(), total, say)
            return total is None or file.tell() == total


def _note(title: str, done: int, total: int | None, say: Say, verb: str = "") -> None:
    of = f" of {total / 1e6:.0f} MB ({100 * done / max(total, 1):.0f} %)" if total else " MB"
    say(f"{title}: {verb + ' ' if verb else ''}{done / 1e6:.0f}{of}")


def _certificates() -> ssl.SSLContext:
    """The system's certificates, and those that pip trusts: some Pythons come with none of their own."""
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError, OSError):
        import certifi

        context.load_verify_locations(certifi.where())
    if extra := os.environ.get("PIP_CERT"):
        with contextlib.suppress(OSError):
            context.load_verify_locations(extra)
    return context
