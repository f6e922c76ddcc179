"""Rewards for a file: each row is the body of a request to ``/v1/rewards``, and each answer is that of the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

from copl_core.formats.containers import open_container
from copl_core.records import CoplError, StoreUnavailable
from copl_core.serving.bodies import BadRequest, reward_request
from copl_core.serving.service import Service


def scored(service: Service, study_id: int, path: Path) -> Iterator[dict[str, Any]]:
    """One answer per row, in the order of the file; of a row that cannot be answered, its number and the reason.

    Args:
        path: JSON lines or another kind of file with records (``formats.containers``).

    Yields:
        ``{"row": number, …}`` with the fields of the server's answer, or with ``error``.

    Raises:
        CoplError: the file cannot be read, the study has no snapshot, or the database does not answer.
    """
    session = service.session(study_id)
    if session.record.champion is None:
        raise CoplError(
            "The study has no snapshot yet, so there are no rewards; let its trainer fit one, or, while the studio is "
            f"stopped: python -m copl_core fit --study {quote(session.record.name)}"
        )
    problems: list[tuple[int, str]] = []
    for record in open_container(path).read(problems):
        yield from _unread(problems)
        yield {"row": record.number, **_answer(service, study_id, record.fields)}
    yield from _unread(problems)


def _answer(service: Service, study_id: int, fields: dict[str, Any]) -> dict[str, Any]:
    try:
        return service.rewards(study_id, reward_request(fields))
    except StoreUnavailable:
        raise
    except (BadRequest, CoplError) as problem:
        return {"error": str(problem)}


def _unread(problems: list[tuple[int, str]]) -> Iterator[dict[str, Any]]:
    """What the reader of the file has found since the last call."""
    yield from ({"row": number, "error": reason} for number, reason in problems)
    problems.clear()
