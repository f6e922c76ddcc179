"""Long writing follows the clock: laws on a clock that only the transactions move."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice

import pytest

from copl_core.records import Choice, ImportRow
from db import imports
from db.imported_rows import ImportedRows
from db.pace import GAP_SECONDS, HOLD_SECONDS, Pace, weighing
from tests.db.import_process import LABELS, file


class Machine:
    """A row and a commit take their time; ``held`` has (begin, end, rows) of each transaction."""

    def __init__(self, row: float, commit: float = 0.0) -> None:
        self.row, self.commit, self.now = row, commit, 100.0
        self.held: list[tuple[float, float, int]] = []

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds

    @contextmanager
    def transaction(self, rows: int) -> Iterator[None]:
        begin = self.now
        yield
        self.now += self.commit
        self.held.append((begin, self.now, rows))

    def pace(self, **more) -> Pace:
        return Pace(clock=self.clock, pause=self.pause, **more)

    def write(self, pace: Pace, n: int) -> None:
        left = iter(range(n))
        while part := list(islice(left, pace.n)):
            with pace.step(self.transaction(len(part))):
                self.now += len(part) * self.row

    def times(self) -> list[float]:
        return [end - begin for begin, end, _ in self.held]


@pytest.mark.parametrize("row", [1e-5, 1e-4, 1e-3, HOLD_SECONDS * 0.9])
def test_transactions_take_the_time_that_is_the_aim_however_fast_the_machine_is(row):
    machine = Machine(row)
    machine.write(machine.pace(first=1, most=10**9), round(100 * HOLD_SECONDS / row))
    assert sum(rows for *_, rows in machine.held) == round(100 * HOLD_SECONDS / row)
    steady = machine.times()[12:-1]
    assert steady and max(machine.times()) <= HOLD_SECONDS + 1.01 * row and min(steady) >= HOLD_SECONDS - 1.01 * row


def test_a_machine_that_becomes_ten_times_slower_is_followed_with_the_next_transaction():
    machine = Machine(1e-4)
    pace = machine.pace()
    machine.write(pace, 5_000)
    machine.row *= 10
    before = len(machine.held)
    machine.write(pace, 1_000)
    assert max(machine.times()[before + 1 :]) <= HOLD_SECONDS + 1.01 * machine.row


@pytest.mark.parametrize("commit", [HOLD_SECONDS / 2, 5 * HOLD_SECONDS])
def test_a_slow_disk_makes_the_work_of_a_transaction_less_but_for_a_quarter(commit):
    machine = Machine(1e-4, commit)
    machine.write(machine.pace(first=500), 5_000)
    expected = max(HOLD_SECONDS - commit, HOLD_SECONDS / 4)
    assert all(time - commit <= expected + 1.01 * machine.row for time in machine.times()[1:])
    assert len(machine.held) <= 2 + 5_000 * machine.row / (expected - machine.row)


def test_others_get_the_writer_for_a_quarter_of_a_transactions_time_and_for_a_moment_at_least():
    for row in (1e-6, 1e-3, 1.0):
        machine = Machine(row)
        machine.write(machine.pace(first=1), 20)
        for (begin, end, _), (again, *_) in zip(machine.held, machine.held[1:], strict=False):
            assert again - end >= max(GAP_SECONDS, (end - begin) / 4) - 1e-9


def test_one_row_at_least_is_taken_and_as_many_as_are_allowed_at_most():
    slow, fast = Machine(1.0), Machine(0.0)
    slow.write(slow.pace(), 60)
    assert [rows for *_, rows in slow.held[1:]] == [1] * 10
    fast.write(fast.pace(most=70), 500)
    assert max(rows for *_, rows in fast.held) == 70


def test_long_texts_weigh_more_and_one_row_is_always_taken():
    texts = ["a"] * 10 + ["b" * 1_000_000] + ["a"] * 10
    stream = iter(texts)
    parts = []
    while part := weighing(stream, 8, len):
        parts.append(len(part))
    assert parts == [8, 3, 8, 2]
    assert weighing(iter(()), 8, len) == [] and len(weighing(iter(texts), 0.1, len)) == 1


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
@pytest.mark.parametrize("row", [1e-4, 4e-3])
def test_an_import_writes_as_many_rows_at_a_time_as_the_clock_allows(store, study, monkeypatch, row):
    machine, sizes = Machine(row), []
    insert = ImportedRows.insert

    def slow_insert(self, connection, rows):
        insert(self, connection, rows)
        machine.now += len(rows) * machine.row
        sizes.append(len(rows))

    monkeypatch.setattr(ImportedRows, "insert", slow_insert)
    monkeypatch.setattr(imports, "Pace", partial(Pace, clock=machine.clock, pause=machine.pause))
    assert store.import_rows(study.id, file()).labels_new == LABELS == sum(sizes)
    assert all(n * row <= HOLD_SECONDS + 1.01 * row for n in sizes[1:])
    assert len(sizes) <= 2 + LABELS / (HOLD_SECONDS / row) + 3


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_rows_of_long_texts_go_in_one_at_a_time(store, study, monkeypatch):
    sizes, insert = [], ImportedRows.insert
    monkeypatch.setattr(ImportedRows, "insert", lambda *args: sizes.append(len(args[2])) or insert(*args))
    long = "b" * 400_000
    rows = [ImportRow(n, f"{n} {long}", long, f"{long}{n}", Choice.LEFT, "Ann", key=f"k{n}") for n in range(1, 6)]
    assert store.import_rows(study.id, rows).labels_new == 5 and max(sizes) <= 2 and len(sizes) >= 3
