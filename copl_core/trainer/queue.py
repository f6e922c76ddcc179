"""The worker's job queue: huey on a SQLite file.

Who wants a fit adds a run to the study's database; the worker's look sends its id over the queue to the thread that
fits.  A message carries nothing else, so a lost or doubled one is harmless: a run that is not queued is skipped, and
what a killed worker left behind is queued again.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from huey import Huey, SqliteHuey
from huey.registry import Message
from huey.serializer import Serializer

from copl_core.config import Settings

TASK = "fit"


class JsonSerializer(Serializer):
    """Messages as JSON: readable with any SQLite client, and nothing is ever unpickled."""

    def _serialize(self, data: object) -> bytes:
        return json.dumps(list(data) if isinstance(data, Message) else {"value": data}).encode()

    def _deserialize(self, data: bytes) -> object:
        content = json.loads(data)
        return Message(*content) if isinstance(content, list) else content["value"]


def make_queue(settings: Settings) -> Huey:
    """The queue of this installation."""
    settings.home.mkdir(parents=True, exist_ok=True)
    return SqliteHuey("copl", filename=str(settings.queue_path), results=False, serializer=JsonSerializer(), timeout=30)


def on_queue(queue: Huey, execute: Callable[[int], None]) -> Callable[[int], object]:
    """Register what a message makes the worker do; the result puts a run's id on the queue.

    ``lock_task`` keeps two consumers of one queue from fitting at the same time.  A message that meets the lock is
    dropped, and its run, still queued in the database, is sent again by the worker's next look.
    """

    @queue.task(name=TASK)
    @queue.lock_task("one-fit-at-a-time")
    def fit(run_id: int) -> None:
        execute(run_id)

    return fit
