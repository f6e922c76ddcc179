"""Tables as CSV text that no spreadsheet takes for formulas.

A spreadsheet computes a cell that begins with = + - @, a tab or a line end, whatever file it is in.  Such a text gets
an apostrophe in front, and so does one that begins with apostrophes before such a sign, so that ``restored`` gives back
what was written.  Numbers stay numbers.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NEUTRALISED = re.compile(r"'+[=+\-@\t\r\n]")


def neutralised(value: object) -> object:
    """A cell's value as a spreadsheet may see it; anything but a text stays as it is."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def restored(value: str) -> str:
    """The text that ``neutralised`` was given."""
    return value[1:] if _NEUTRALISED.match(value) else value


def csv_text(rows: Iterable[Mapping[str, object]], columns: Sequence[str], *, line_end: str = "\r\n") -> str:
    """Rows as CSV with a header line; a row without a column leaves its cell empty.

    Raises:
        ValueError: a row holds a name that is not among the columns.
    """
    out = io.StringIO()
    table = csv.DictWriter(out, columns, lineterminator=line_end)
    table.writeheader()
    table.writerows({name: neutralised(value) for name, value in row.items()} for row in rows)
    return out.getvalue()
