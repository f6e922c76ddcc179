"""Tables as CSV text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence


def csv_text(rows: Iterable[Mapping[str, object]], columns: Sequence[str], *, line_end: str = "\r\n") -> str:
    """Rows as CSV with a header line; a row without a column leaves its cell empty.

    Raises:
        ValueError: a row holds a name that is not among the columns.
    """
    out = io.StringIO()
    table = csv.DictWriter(out, columns, lineterminator=line_end)
    table.writeheader()
    table.writerows(rows)
    return out.getvalue()
