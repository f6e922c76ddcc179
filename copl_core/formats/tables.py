"""Binary tables: Parquet, Arrow, Excel, and folders that the datasets library has saved.  Rows come as mappings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from copl_core.records import CoplError

Rows = Callable[[], Iterator[dict[str, Any]]]
_BATCH = 2000  # rows
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
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
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
        names = json.loads((path / "dataset_dict.json").read_text("utf-8")).get("splits", [])
        parts = {name: _saved_files(path / name) for name in names}
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


def _saved_files(folder: Path) -> list[Path]:
    try:
        state = json.loads((folder / "state.json").read_text("utf-8"))
        files = [folder / one["filename"] for one in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CoplError(f"{folder} has no readable state.json; save the data set again (save_to_disk).") from error
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CoplError(f"{folder} lacks its file {missing[0]}; copy the whole folder.")
    return files


def _parquet_files(path: Path) -> dict[str, list[Path]]:
    """Parquet files by split: ``train-00000-of-00002.parquet``, ``train.parquet`` or a folder ``train``."""
    parts: dict[str, list[Path]] = {}
    for file in sorted(path.rglob("*.parquet")):
        split = file.stem.partition("-0")[0]
        parts.setdefault(split, []).append(file)
    return parts if len(parts) != 1 else {"": next(iter(parts.values()))}


def _of_splits(parts: dict[str, list[Path]]) -> Iterator[dict[str, Any]]:
    for split, files in parts.items():
        for file in files:
            rows = _parquet(file) if file.suffix == ".parquet" else _arrow(file)
            yield from ({"split": split} | row for row in rows) if split else rows


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH):
            yield from map(_plain, batch.to_pylist())


def _arrow(path: Path) -> Iterator[dict[str, Any]]:
    for batch in _arrow_batches(path):
        for start in range(0, batch.num_rows, _BATCH):
            yield from map(_plain, batch.slice(start, _BATCH).to_pylist())


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
