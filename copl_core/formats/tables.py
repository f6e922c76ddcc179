"""Binary tables: Parquet, Arrow, Excel, and folders that the datasets library has saved.

Rows come as mappings; in place of one that cannot be read comes the reason, as text.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from copl_core.records import CoplError

Rows = Callable[[], Iterator[dict[str, Any] | str]]
_BATCH = 2000  # rows
_UNREADABLE = (ArithmeticError, ValueError, TypeError, NotImplementedError)  # what a value raises that Python lacks
# What a damaged file raises, by the bases of pyarrow's own errors
DAMAGE = (OSError, ValueError, TypeError, LookupError, NotImplementedError, MemoryError)
_SHEET_BYTES = 2**30  # of an unpacked workbook: all of it is in memory while it is read
_SHEET_CELLS = 2**25  # of a sheet, empty ones between others too
_CELL = re.compile(rb"""\br\s*=\s*["']([A-Z]{1,3})(\d{1,7})["']""")
_MAGIC = {
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"\xff\xff\xff\xff": "Arrow stream",
    b"PK\x03\x04": "workbook",  # a zip archive
    b"\xd0\xcf\x11\xe0": "workbook",  # of the old kind
}


def kind_of(head: bytes) -> str:
    """The kind of table by the first bytes of its file; empty for a file of text."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")


def open_table(path: Path, kind: str) -> tuple[str, Rows, tuple[str, ...], int]:
    """(its kind in words, a reader of its rows, notes for the report, number of the first row).

    Raises:
        CoplError: the file is damaged, or a kind that is not read.
    """
    if kind == "workbook":
        rows, notes = _open_workbook(path)
        return "Excel", rows, notes, 2
    try:
        if kind == "Parquet":
            import pyarrow.parquet as parquet

            parquet.ParquetFile(path).close()
            return kind, lambda: _parquet(path), (), 1
        _arrow_batches(path)
    except DAMAGE as error:
        raise CoplError(
            f"{path} looks like {kind} but is damaged ({_first_line(error)}); get a complete file."
        ) from error
    return "Arrow", lambda: _arrow(path), (), 1


def open_folder(path: Path) -> tuple[str, Rows]:
    """(its kind in words, a reader of its rows) of a folder saved by the datasets library, or of Parquet files.

    Rows of a folder with several splits get the name of theirs as ``split``.

    Raises:
        CoplError: the folder is neither.
    """
    if (path / "dataset_dict.json").is_file():
        parts = {name: _saved_files(path / name) for name in _splits(path / "dataset_dict.json")}
    elif (path / "state.json").is_file():
        parts = {"": _saved_files(path)}
    else:
        parts = _parquet_files(path)
    if not any(parts.values()):
        raise CoplError(
            f"{path} is a folder without a saved data set; give a file, or a folder that the datasets library has "
            "saved (save_to_disk)."
        )
    return "a folder of the datasets library", lambda: _of_splits(parts)


def _splits(path: Path) -> list[str]:
    try:
        names = json.loads(path.read_text("utf-8"))["splits"]
        return [name for name in names if Path(name).name == name != ".."]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CoplError(f"{path} does not name the splits; save the data set again (save_to_disk).") from error


def _saved_files(folder: Path) -> list[Path]:
    try:
        state = json.loads((folder / "state.json").read_text("utf-8"))
        names = [one["filename"] for one in state["_data_files"]]
        if any(Path(name).name != name for name in names):
            raise ValueError("a file outside the folder")  # which somebody else may not have meant to be read
        files = [folder / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CoplError(f"{folder} has no readable state.json; save the data set again (save_to_disk).") from error
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CoplError(f"{folder} lacks its file {missing[0]}; copy the whole folder.")
    return files


def _parquet_files(path: Path) -> dict[str, list[Path]]:
    """Parquet files by split: ``train-00000-of-00002.parquet``, ``train.parquet`` or a folder ``train``."""
    parts: dict[str, list[Path]] = {}
    for file in sorted(file for file in path.rglob("*.parquet") if file.is_file()):
        split = file.stem.partition("-0")[0]
        parts.setdefault(split, []).append(file)
    return parts if len(parts) != 1 else {"": next(iter(parts.values()))}


def _of_splits(parts: dict[str, list[Path]]) -> Iterator[dict[str, Any] | str]:
    for split, files in parts.items():
        for file in files:
            rows = _parquet(file) if file.suffix == ".parquet" else _arrow(file)
            for row in rows:
                yield {"split": split} | row if split and isinstance(row, dict) else row


def _parquet(path: Path) -> Iterator[dict[str, Any] | str]:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH):
            yield from _rows(batch)


def _arrow(path: Path) -> Iterator[dict[str, Any] | str]:
    for batch in _arrow_batches(path):
        batch.validate(full=True)  # a file may say that a text goes on where there is no memory
        for start in range(0, batch.num_rows, _BATCH):
            yield from _rows(batch.slice(start, _BATCH))


def _rows(batch: Any) -> Iterator[dict[str, Any] | str]:
    """The rows of a batch; one by one where a value in it is none of Python's, such as a day in the year 5,000,000."""
    try:
        yield from list(map(_plain, batch.to_pylist()))
    except _UNREADABLE as error:
        if batch.num_rows > 1:
            for number in range(batch.num_rows):
                yield from _rows(batch.slice(number, 1))
        else:
            yield f"a value cannot be read ({_first_line(error)})"


def _arrow_batches(path: Path) -> Iterator[Any]:
    """The batches of a file in the stream or the file form of Arrow; the file is mapped, not read."""
    import pyarrow as pa

    source = pa.memory_map(str(path), "r")
    try:
        stream = pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        file = pa.ipc.open_file(source)
        return (file.get_batch(number) for number in range(file.num_record_batches))
    return iter(stream)


def _open_workbook(path: Path) -> tuple[Rows, tuple[str, ...]]:
    try:
        import python_calamine as calamine
    except ModuleNotFoundError:
        raise CoplError(
            f"{path} is a workbook of Excel, and reading it needs a package: run `pip install python-calamine`, or "
            "save the sheet as CSV."
        ) from None
    _check_size(path)
    try:
        with path.open("rb") as file:  # by contents, whatever the name ends with
            book = calamine.load_workbook(file)
        sheets = [(name, book.get_sheet_by_name(name)) for name in book.sheet_names]
    except (calamine.CalamineError, OSError) as error:
        raise CoplError(
            f"{path} is a zip archive or a damaged workbook ({_first_line(error)}); unpack it and give one of its "
            "files, or save the sheet as CSV."
        ) from None
    filled = [(name, sheet) for name, sheet in sheets if sheet.height > 1]
    if not filled:
        raise CoplError(f"{path} has no sheet with a header and rows; fill one, or save the rows as CSV.")
    rows = list(_sheet_rows(path, filled[0][1]))  # kept: the open workbook holds them anyway
    others = ", ".join(name for name, _ in filled[1:])
    return lambda: iter(rows), (f"only the sheet {filled[0][0]} was read, not {others}",) if others else ()


def _check_size(path: Path) -> None:
    """Refuse a workbook that would fill the memory: its reader keeps all cells up to the last one, and the empty ones.

    Raises:
        CoplError: it is too large.
    """
    try:
        with ZipFile(path) as packed:
            if sum(part.file_size for part in packed.infolist()) > _SHEET_BYTES:
                raise CoplError(f"{path} is larger than 1 GiB when it is unpacked; save the sheet as CSV.")
            for part in packed.namelist():
                if part.startswith("xl/worksheets/") and part.endswith(".xml"):
                    _check_cells(path, packed, part)
    except (BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, zlib.error):
        return  # its reader says what is wrong with it


def _check_cells(path: Path, packed: ZipFile, part: str) -> None:
    columns, rows, rest = {b"A"}, 1, b""
    with packed.open(part) as sheet:
        while block := sheet.read(1 << 20):
            for column, row in _CELL.findall(rest + block):
                columns.add(column)
                rows = max(rows, int(row))
            rest = block[-40:]  # a name may be cut
    last = max(columns, key=lambda name: (len(name), name))
    width = sum((letter - 64) * 26**place for place, letter in enumerate(reversed(last)))
    if rows * width > _SHEET_CELLS:
        raise CoplError(
            f"{path} has a sheet whose cells reach to column {last.decode()} and row {rows:,}, which is more than is "
            "read; delete what stands far from the table, or save the rows as CSV."
        )


def _sheet_rows(path: Path, sheet: Any) -> Iterator[dict[str, Any]]:
    cells = iter(sheet.to_python(skip_empty_area=False))
    header = [str(name).strip() for name in next(cells, ())]
    named = [(column, name) for column, name in enumerate(header) if name]
    twice = next((name for _, name in named if header.count(name) > 1), None)
    if twice is not None:
        raise CoplError(f"{path} has two columns named {twice}; give each its own name.")
    for row in cells:
        filled = any(value != "" for value in row)
        yield {name: _cell(row[column]) if filled else None for column, name in named if column < len(row)}


def _cell(value: Any) -> Any:
    """A cell as JSON has it; Excel knows no whole numbers, so 17.0 is 17."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return _plain_value(value)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Values as JSON has them: a time as ISO text, a decimal as a number."""
    return {name: _plain_value(value) for name, value in row.items()}


def _plain_value(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(name): _plain_value(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_value(one) for one in value]
    if isinstance(value, Decimal):
        return float(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
