"""Run by the tests in a process of its own: import most of a file, say so, and wait to be killed.

Arguments: the address of the database, and the id of the study.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from copl_core.records import Choice, ImportRow
from db.store import SqlStore, make_engine

LABELS, MOST = 500, 420


def file() -> Iterator[ImportRow]:
    """Labels of fifty people; one pair and its texts are those of the tests' four pairs."""
    for i in range(LABELS):
        texts = f"prompt {i // 9}", f"answer {i // 3 % 3}", f"other {i // 3}"
        yield ImportRow(i + 1, *texts, list(Choice)[i % 4], f"reader {(i * 7) % 50}", key=f"k{i}", position_known=True)


def _most_of_it() -> Iterator[ImportRow]:
    for row in file():
        if row.line == MOST:
            print("most of it", flush=True)
            time.sleep(600)
        yield row


if __name__ == "__main__":
    SqlStore(make_engine(sys.argv[1])).import_rows(int(sys.argv[2]), _most_of_it())
