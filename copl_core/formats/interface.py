"""The interface of a format: *recognise* a file by its first records, *read* it, and say what it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from copl_core.formats.containers import Record
from copl_core.formats.reading import Reading
from copl_core.formats.values import BadRecord
from copl_core.records import ImportRow


@dataclass(frozen=True)
class Sample:
    """The first records of a file."""

    records: Sequence[dict[str, Any]]

    @property
    def fields(self) -> list[str]:
        """Names of fields in any of the records, in their order."""
        return list(dict.fromkeys(name for record in self.records for name in record))

    def has(self, *names: str) -> bool:
        """Whether most of the records have all these fields."""
        n = sum(all(name in record for name in names) for record in self.records)
        return 2 * n > len(self.records)

    def values(self, name: str) -> list[Any]:
        return [record[name] for record in self.records if record.get(name) is not None]

    def any(self, name: str, kind: type | tuple[type, ...]) -> bool:
        """Whether a record has a value of this kind there."""
        return any(isinstance(value, kind) for value in self.values(name))


class Format(ABC):
    """One format of files; a stateless object, listed in ``registry.FORMATS``.

    Attributes:
        name: as ``--format`` and reports have it.
        title: as people call it.
        needs: the fields that it needs, as a part of a sentence.
        learns: whether it has to see the whole file before it reads the first row.
        choice_is_a_field: whether ``--map choice=THEIRS`` can name a choice that is not recognised.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[str]
    learns: ClassVar[bool] = False
    choice_is_a_field: ClassVar[bool] = True

    @abstractmethod
    def recognise(self, sample: Sample) -> bool:
        """Whether a file that begins like this is of this format."""

    def learn(self, records: Iterable[Record], reading: Reading) -> None:
        """Remember in ``reading`` what rows need to know of other rows; called first if ``learns``."""
        raise NotImplementedError

    def read(self, records: Iterable[Record], reading: Reading) -> Iterator[ImportRow]:
        """The rows of a file; what is left out goes to ``reading``.

        A format whose rows span several records overrides this; any other implements ``rows``.
        """
        for record in records:
            try:
                yield from self.rows(record, reading)
            except BadRecord as bad:
                reading.left_out.append((record.number, str(bad)))

    def rows(self, record: Record, reading: Reading) -> Iterable[ImportRow]:
        """The rows of one record.

        Raises:
            BadRecord: the record cannot be taken.
        """
        raise NotImplementedError
