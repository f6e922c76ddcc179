"""Files as bytes and as text: compression by what a file contains, and its encoding."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from pathlib import Path
from typing import IO, Any, cast

from copl_core.records import CoplError

DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, UnicodeError)  # what reading a damaged file raises
_BLOCK = 1 << 20  # bytes
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_SUFFIXES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# A letter of two to four bytes in UTF-8; a text in a one-byte encoding has next to none of them.
_UTF8_LETTER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_NOT_IN_1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")


def open_bytes(path: Path) -> IO[bytes]:
    """The contents of a file; gzip, bzip2, xz and zstd are unpacked on the way.

    Raises:
        CoplError: the file is missing, a folder, unreadable, or not packed as its name says.
    """
    try:
        with path.open("rb") as raw:
            head = raw.read(8)
        found = next((name for magic, name in _PACKED.items() if head.startswith(magic)), "")
        named = _SUFFIXES.get(path.suffix.lower(), "")
        if named and head and not found:
            raise CoplError(
                f"{path} is named like a {named} file but is not one; compress it, or drop {path.suffix} from its name."
            )
        return _unpacked(path, found)
    except (FileNotFoundError, ValueError):  # a name with a null character names no file
        raise CoplError(f"There is no file {path}; check its name and folder.") from None
    except IsADirectoryError:
        raise CoplError(
            f"{path} is a folder; give a file, or a folder that the datasets library has saved (save_to_disk)."
        ) from None
    except OSError as error:
        raise CoplError(f"{path} cannot be read ({error.strerror or error}); check its permissions.") from error


def _unpacked(path: Path, packed: str) -> IO[bytes]:
    if packed == "gzip":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if packed == "bzip2":
        return cast(IO[bytes], bz2.open(path, "rb"))
    if packed == "xz":
        return cast(IO[bytes], lzma.open(path, "rb"))
    if packed == "zstd":
        import pyarrow as pa  # Python 3.11 has no zstd of its own, and pyarrow is here for Parquet

        stream: Any = pa.CompressedInputStream(pa.OSFile(str(path), "rb"), "zstd")
        return cast(IO[bytes], io.BufferedReader(stream, _BLOCK))
    return path.open("rb")


def open_text(path: Path, encoding: str, newline: str | None = "\n") -> IO[str]:
    """The contents as text; bytes that the encoding does not have become lone surrogates."""
    return io.TextIOWrapper(open_bytes(path), encoding, errors="surrogateescape", newline=newline)


def encoding_of(path: Path) -> str:
    """The encoding of a file: by its byte order mark, else UTF-8, UTF-16 or Windows-1252 by its bytes.

    A file with letters in UTF-8 is UTF-8, whatever a damaged line of it holds.

    Raises:
        CoplError: the bytes are those of none of these encodings.
    """
    with open_bytes(path) as file:
        try:
            head = file.read(_BLOCK)
        except DAMAGE:
            return "utf-8"  # the reader reports the damage
        for mark, name in _MARKS:
            if head.startswith(mark):
                return name
        if wide := _wide(head):
            return wide
        return _narrow(path, file, head)


def _wide(head: bytes) -> str:
    """UTF-16 without a byte order mark: every other byte of Latin letters is zero."""
    even, odd = head[:4000:2], head[1:4000:2]
    if odd.count(0) > len(odd) // 2:
        return "utf-16-le"
    return "utf-16-be" if even and even.count(0) > len(even) // 2 else ""


def _narrow(path: Path, file: IO[bytes], block: bytes) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    letters = invalid = undefined = False
    try:
        while block:
            if not block.isascii():
                letters |= _UTF8_LETTER.search(block) is not None
                undefined |= _NOT_IN_1252.search(block) is not None
                invalid |= not _decodes(decoder, block)
                if invalid and letters:
                    return "utf-8"
            block = file.read(_BLOCK)
    except DAMAGE:
        pass
    if not invalid or letters:
        return "utf-8"
    if undefined:
        raise CoplError(f"{path} is in an encoding that is neither UTF-8, UTF-16 nor Windows-1252; save it as UTF-8.")
    return "cp1252"


def _decodes(decoder: codecs.IncrementalDecoder, block: bytes) -> bool:
    try:
        decoder.decode(block)
    except UnicodeDecodeError:
        decoder.reset()
        return False
    return True
