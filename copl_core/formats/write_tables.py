"""Rows as tables: CSV, Parquet, and a folder that ``datasets.load_from_disk`` opens.

Every column holds one type: a list or an object of a row is its JSON text, an empty one nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from copl_core.formats.own import whole
from copl_core.formats.selection import Row
from copl_core.formats.table import csv_text

_CARD = """---
pretty_name: {title}
task_categories: [text-classification]
tags: [preference, reward-model]
---

# {title}

{n:,} {what} of a study of CoPL Studio.  Load the folder with `datasets.load_from_disk`.  `choice` is `a`, `b`, `tie` or
`both_bad`; `left` names the response that was shown on the left, and `strength` is 1 to 3, where these are known;
`tags` and `meta` are JSON.
"""
_DTYPES = {"string": "string", "int64": "int64", "double": "float64", "bool": "bool"}


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """A CSV file; texts that a spreadsheet would compute are neutralised (``formats.table``)."""
    columns = list(rows[0]) if rows else []
    with whole(path) as target:
        target.write(csv_text(map(_flat, rows), columns).encode())


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    import pyarrow.parquet as parquet

    with whole(path) as target:
        parquet.write_table(_table(rows), target)


def write_folder(rows: Sequence[Row], folder: Path) -> None:
    """A data set as the datasets library saves one: an Arrow stream, its features, and a card."""
    import pyarrow as pa

    table = _table(rows)
    features = {
        name: {"dtype": _DTYPES[str(kind)], "_type": "Value"}
        for name, kind in zip(table.schema.names, table.schema.types, strict=True)
    }
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    folder.mkdir()
    name = "data-00000-of-00001.arrow"
    with (folder / name).open("wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    info = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
    state: dict[str, Any] = {
        "_data_files": [{"filename": name}], "_fingerprint": digest[:16], "_format_columns": None,
        "_format_kwargs": {}, "_format_type": None, "_output_all_columns": False, "_split": None,
    }  # fmt: skip
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2))
    (folder / "state.json").write_text(json.dumps(state, indent=2))
    title = str(rows[0]["study"]) if rows else "Labels"
    what = "pairs" if rows and "share_a" in rows[0] else "labels"
    (folder / "README.md").write_text(_CARD.format(title=json.dumps(title, ensure_ascii=False), n=len(rows), what=what))


def _flat(row: Row) -> Row:
    """The row with lists and objects as JSON text, or as nothing where they are empty."""
    return {name: _text(value) if isinstance(value, (list, dict)) else value for name, value in row.items()}


def _text(value: list[Any] | dict[str, Any]) -> str | None:
    return json.dumps(value, ensure_ascii=False) if value else None


def _table(rows: Sequence[Row]) -> Any:
    """Rows as an Arrow table; a column without values is one of texts."""
    import pyarrow as pa

    flat = [_flat(row) for row in rows]
    names = list(flat[0]) if flat else []
    columns = {name: pa.array([row[name] for row in flat]) for name in names}
    return pa.table(
        {name: one.cast(pa.string()) if pa.types.is_null(one.type) else one for name, one in columns.items()}
    )
