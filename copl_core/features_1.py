"""The style features of version 1: many of them counts, which are larger in longer texts.

Graphs that learned from them read new texts by them (``copl_core.features``).  This module never changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?…]+(?=[\s\"')\]]|$)|\n+(?=\s*\S)")
_LIST_ITEM = re.compile(r"^\s*(?:[-*•+]|\d{1,3}[.)])\s+\S", re.MULTILINE)
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s+\S|^\s*\*\*[^*\n]{1,80}\*\*:?\s*$", re.MULTILINE)
_CODE = re.compile(r"```|`[^`\n]+`")
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
_EXAMPLE = re.compile(r"\b(?:for example|for instance|such as|e\.g\.|imagine|suppose|let's say)", re.IGNORECASE)
_STEP = re.compile(r"\b(?:first(?:ly)?|second(?:ly)?|third(?:ly)?|then|next|finally|step \d+)\b", re.IGNORECASE)
_CONTRAST = re.compile(r"\b(?:however|but|although|though|on the other hand|whereas|yet|while)\b", re.IGNORECASE)
_REASON = re.compile(
    r"\b(?:because|since|therefore|thus|hence|so that|as a result|due to|consequently)\b", re.IGNORECASE
)
_REFUSAL = re.compile(
    r"\b(?:as an ai|i(?:'m| am) sorry|i(?:'m| am) (?:not able|unable)|i (?:can(?:'|no)t|cannot|won't)|language model)",
    re.IGNORECASE,
)
_LATINATE = re.compile(r"(?:tion|sion|ment|ance|ence|ity|ism|ology)s?$", re.IGNORECASE)

_HEDGES = frozenset(
    "maybe perhaps might may could possibly probably likely seems seem appears appear somewhat "
    "generally usually often sometimes typically potentially roughly arguably guess unsure".split()
)
_CERTAIN = frozenset(
    "always never must certainly definitely clearly obviously undoubtedly absolutely surely all none "
    "every simply exactly completely totally only proven fact".split()
)
_SECOND = frozenset("you your yours yourself you're you'll you've you'd".split())
_FIRST = frozenset("i me my mine myself i'm i'll i've i'd we us our ours we're we'll we've".split())
_WARM = frozenset(
    "thanks thank please glad happy sorry hope feel feeling love dear welcome great wonderful enjoy kind "
    "care gentle understand friend together lovely".split()
)


class _Parts:
    """A text split once: its words, sentences and length."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.words = [word.lower().replace("’", "'") for word in _WORD.findall(self.text)]
        self.n_words = len(self.words)
        self.n_sentences = max(len(_SENTENCE_END.findall(self.text)), 1 if self.text else 0)

    def share(self, vocabulary: frozenset[str]) -> float:
        """Square root of the share of words in ``vocabulary``: the first few such words count most."""
        return float(np.sqrt(sum(word in vocabulary for word in self.words) / self.n_words)) if self.n_words else 0.0

    def count(self, pattern: re.Pattern[str]) -> float:
        """log(1 + matches)."""
        return float(np.log1p(len(pattern.findall(self.text))))

    def signs(self, signs: str) -> float:
        return float(np.log1p(sum(self.text.count(sign) for sign in signs)))

    def mean(self, values: Sequence[float]) -> float:
        return float(np.mean(values)) if len(values) else 0.0


_FEATURES: dict[str, Callable[[_Parts], float]] = {
    "length": lambda p: float(np.log1p(p.n_words)),
    "sentences": lambda p: float(np.log1p(p.n_sentences)),
    "sentence_length": lambda p: float(np.log1p(p.n_words / p.n_sentences)) if p.n_sentences else 0.0,
    "word_length": lambda p: p.mean([len(word) for word in p.words]) / 5,
    "lines": lambda p: float(np.log1p(p.text.count("\n"))),
    "lists": lambda p: p.count(_LIST_ITEM),
    "headings": lambda p: p.count(_HEADING),
    "code": lambda p: p.count(_CODE),
    "bold": lambda p: p.count(_BOLD),
    "questions": lambda p: p.signs("?"),
    "exclamations": lambda p: p.signs("!"),
    "hedging": lambda p: p.share(_HEDGES),
    "certainty": lambda p: p.share(_CERTAIN),
    "second_person": lambda p: p.share(_SECOND),
    "first_person": lambda p: p.share(_FIRST),
    "warmth": lambda p: p.share(_WARM),
    "digits": lambda p: p.signs("0123456789"),
    "examples": lambda p: p.count(_EXAMPLE),
    "steps": lambda p: p.count(_STEP),
    "contrast": lambda p: p.count(_CONTRAST),
    "reasons": lambda p: p.count(_REASON),
    "refusal": lambda p: p.count(_REFUSAL),
    "contractions": lambda p: float(np.sqrt(p.mean(["'" in word for word in p.words]))),
    "abstract_words": lambda p: float(np.sqrt(p.mean([bool(_LATINATE.search(word)) for word in p.words]))),
    "variety": lambda p: len(set(p.words)) / np.sqrt(p.n_words) / 5 if p.n_words else 0.0,
    "punctuation": lambda p: p.signs(",;:()—"),
    "quotes": lambda p: p.signs('"“”«»'),
    "capitals": lambda p: p.mean([char.isupper() for char in p.text if char.isalpha()]),
    "other_script": lambda p: p.mean([ord(char) > 0x24F for char in p.text]),
    "ends_open": lambda p: float(bool(p.text) and p.text[-1] not in ".!?…\"”')]}`*"),
}


def measure_many(texts: Sequence[str]) -> np.ndarray:
    """Style features of many texts, (T, F) float32, in the order of ``features.FEATURE_NAMES``."""
    parts = map(_Parts, texts)
    rows = [[function(one) for function in _FEATURES.values()] for one in parts]
    return np.array(rows, np.float32).reshape(-1, len(_FEATURES))
