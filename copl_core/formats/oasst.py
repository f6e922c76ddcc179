"""Trees of messages with ranked answers: OpenAssistant, as trees or as one message per row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from copl_core.formats.containers import Record
from copl_core.formats.interface import Format, Sample
from copl_core.formats.rankings import Answer, Rated, pairs
from copl_core.formats.reading import Reading
from copl_core.formats.values import BadRecord, checked, is_true, missing, source_name, whole_number
from copl_core.records import ImportRow
from copl_core.turns import Turn, text_of


class Oasst(Format):
    """Trees of messages, whose answers people have ranked; rank 0 is the best."""

    name = "oasst"
    title = "A file of OpenAssistant trees"
    needs = "prompt with its replies, and a rank for each answer"
    crowd = "OpenAssistant reviewers"

    def recognise(self, sample: Sample) -> bool:
        return sample.has("message_tree_id", "prompt") or sample.has("message_id", "parent_id", "role", "text")

    def read(self, records: Iterable[Record], reading: Reading) -> Iterator[ImportRow]:
        flat: dict[str, dict[str, Any]] = {}
        for record in records:
            if isinstance(record.fields.get("prompt"), dict):
                yield from self._tree(record, reading, record.fields["prompt"])
            elif "message_id" in record.fields and isinstance(record.fields.get("text"), str):
                flat[str(record.fields["message_id"])] = {**record.fields, "replies": [], "number": record.number}
            else:
                reading.left_out.append((record.number, "there is neither a prompt with replies nor a message"))
        for message in flat.values():
            parent = flat.get(str(message.get("parent_id")))
            if parent is not None:
                parent["replies"].append(message)
        for message in flat.values():
            if str(message.get("parent_id")) not in flat:
                yield from self._tree(Record(message["number"], {}), reading, message)

    def _tree(self, record: Record, reading: Reading, root: dict[str, Any]) -> Iterator[ImportRow]:
        waiting: list[tuple[dict[str, Any], list[Turn]]] = [(root, [])]
        while waiting:
            message, before = waiting.pop(0)
            try:
                turn = self._turn(message)
                replies = [one for one in message.get("replies") or () if isinstance(one, dict)]
                reading.ignored.update("deleted" for one in replies if is_true(one.get("deleted")))
                replies = [one for one in replies if not is_true(one.get("deleted"))]
                answers = [one for one in replies if one.get("role") == "assistant"]
                if turn.role == "user" and len(answers) > 1:
                    yield from self._ranked(record, reading, message, [*before, turn], answers)
                waiting += [(one, [*before, turn]) for one in replies]
            except BadRecord as bad:
                reading.left_out.append((record.number, str(bad)))

    def _ranked(
        self, record: Record, reading: Reading, message: dict, turns: list[Turn], found: list[dict]
    ) -> Iterator[ImportRow]:
        answers = [
            Answer(
                self._turn(one).text,
                self._score(one),
                source_name("model_name", one.get("model_name")),
                str(one.get("message_id", "")) or None,
            )
            for one in found
        ]
        meta = {
            name: message[name] for name in ("message_tree_id", "message_id", "lang") if not missing(message.get(name))
        }
        by = reading.options.annotator or self.crowd
        yield from pairs(
            record, reading, Rated(text_of(turns), answers, by, meta=meta, context=[message.get("message_id")])
        )

    def _score(self, message: dict[str, Any]) -> float | None:
        rank = whole_number(message.get("rank"))
        return None if rank is None else -float(rank)

    def _turn(self, message: dict[str, Any]) -> Turn:
        text = message.get("text")
        if not isinstance(text, str):
            raise BadRecord("a message has no text")
        return Turn("user" if message.get("role") == "prompter" else "assistant", checked("text", text))
