"""What the long-running processes log: lines for people, or with ``COPL_LOG=json`` one JSON object per line."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType

STYLES = ("text", "json")
_QUIET = ("alembic", "httpx", "transformers")
_ABOUT: ContextVar[Mapping[str, int]] = ContextVar("about", default=MappingProxyType({}))


class JsonFormatter(logging.Formatter):
    """time, level, logger and message; run and study where they are known; error: a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_ABOUT.get(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def start(style: str) -> None:
    """Log to standard error from now on, in one of ``STYLES``."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter() if style == "json" else logging.Formatter("%(asctime)s %(name)s %(message)s", "%H:%M:%S")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    if style == "json":
        logging.captureWarnings(True)
        sys.excepthook = _last_error


def in_json() -> bool:
    """Whether this process logs JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


@contextmanager
def about(**facts: int) -> Iterator[None]:
    """While it runs, what this thread logs is about a run or a study."""
    token = _ABOUT.set({**_ABOUT.get(), **facts})
    try:
        yield
    finally:
        _ABOUT.reset(token)


def note(**facts: int) -> None:
    """From now on, what this thread or request logs is about a run or a study."""
    _ABOUT.set({**_ABOUT.get(), **facts})


def _last_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("copl").critical("The process ends with an error.", exc_info=(kind, error, trace))
