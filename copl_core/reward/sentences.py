"""Where a sentence ends, for texts that a language model is still writing.  Plain text only, without a model."""

from __future__ import annotations

import re

# An end is a mark of punctuation, with what closes a quotation or bold type, or the end of a line.
_END = re.compile(r"(?:[.!?…。！？]+[\"'”’»)\]*_`]*(?=\s|$))|(?<=\S)(?=\n)")
# A full stop after a number at the start of a line belongs to a list item, and is no end.
_LIST_MARK = re.compile(r"(?:^|\n)[ \t]*(?:\d{1,3}[.)]|[-*•])$")


def ends_sentence(text: str) -> bool:
    """Whether the text ends where a sentence or a line ends."""
    return bool(text.strip()) and _last_end(text) == len(text.rstrip())


def whole_sentences(text: str) -> str:
    """The text up to its last end of a sentence or a line; unchanged where there is none."""
    return text[: _last_end(text)].rstrip() or text


def _last_end(text: str) -> int:
    """Index after the last end; 0 where there is none."""
    for match in reversed(list(_END.finditer(text))):
        if not _LIST_MARK.search(text[: match.end()]):
            return match.end()
    return 0
