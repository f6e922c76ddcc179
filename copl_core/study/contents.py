"""The verbs about the contents of a study: its prompts, responses and pairs, their import and export."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from copl_core.records import ImportReport, ImportRow, Pair, Response
from copl_core.study.session import Session


def import_rows(session: Session, rows: Iterable[ImportRow], *, by: int | None = None) -> ImportReport:
    """Add pairs and labels; rows that the study already has are skipped.  ``by`` is the acting user."""
    return session.store.import_rows(session.id, rows, by=by)


def export(session: Session) -> Iterator[dict]:
    """Every label as a row of the export file (``formats.own``)."""
    return session.store.export(session.id)


def prompts(session: Session) -> list[tuple[int, str]]:
    """(id, text) of every prompt."""
    return session.store.prompts(session.id)


def prompt_responses(session: Session, prompt_id: int) -> list[Response]:
    return session.store.prompt_responses(prompt_id)


def pair(session: Session, pair_id: int) -> Pair:
    return session.store.pair(pair_id)


def responses(session: Session, response_ids: Sequence[int]) -> dict[int, Response]:
    """The responses with these ids that exist, by id."""
    return session.store.responses(response_ids)


def sources(session: Session) -> list[str]:
    """The sources of the study's responses, as their files name them, sorted."""
    return sorted({source for _, source in session.store.sources(session.id)})


def find_pairs(session: Session, query: str, limit: int = 10) -> tuple[list[Pair], int]:
    """(the first pairs by id whose prompt or responses contain every word of the query, number of all such pairs)."""
    words = query.casefold().split()
    titles = dict(session.store.prompts(session.id))
    pairs = session.store.pairs(session.id)
    texts = session.store.responses(sorted({side for row in pairs for side in row[1:]}))
    found = []
    for pair_id, first, second in pairs:
        prompt = titles[texts[first].prompt_id]
        text = f"{prompt} {texts[first].text} {texts[second].text}".casefold()
        if all(word in text for word in words):
            found.append(Pair(pair_id, texts[first].prompt_id, prompt, texts[first], texts[second]))
    return found[:limit], len(found)
