"""What can be counted in a text: interpretable style features of a response, in numpy and ``re`` alone.

They serve twice: as a part of the text embedding φ (``copl_core.training.text_embedder``), and as the words that
describe a user's taste ("longer answers", "fewer headings").  Every feature is a fixed function of one text on a
compressed scale.  ``LENGTH_FEATURES`` are logarithms of counts; all others are shares, means and rates, which do not
depend on the length of a text: a text that is written down twice has the same style.  Nothing is fitted here, so equal
texts have equal features.

A graph learns from the features as one version measures them and reads new texts by the same version
(``GraphState.features_version``); earlier versions are in modules of their own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

VERSION = 2  # of the definitions below; increased whenever one of them changes
LENGTH_FEATURES = ("length", "sentences", "lines")
_PROSE = 0.01  # chance that two words of a text in English are the same, taken for texts of fewer than two words

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SENTENCE_BREAK = re.compile(r"(?<=[.!?…])[\"')\]”’]*\s+|\n+")
_LIST_ITEM = re.compile(r"(?:[-*•+]|\d{1,3}[.)])\s+\S")
_HEADING = re.compile(r"#{1,6}\s+\S|\*\*[^*\n]{1,80}\*\*:?$")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
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
    """A text split once: its words, sentences and lines."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.words = _words(self.text)
        self.n_words = len(self.words)
        self.sentences = [one for one in _SENTENCE_BREAK.split(self.text) if one.strip()]
        self.lines = [one.strip() for one in self.text.split("\n") if one.strip()]

    def share(self, vocabulary: frozenset[str]) -> float:
        """Square root of the share of words in ``vocabulary``: the first few such words count most."""
        return _root(sum(word in vocabulary for word in self.words), self.n_words)

    def rate(self, pattern: re.Pattern[str]) -> float:
        """Square root of the matches per sentence."""
        return _root(len(pattern.findall(self.text)), len(self.sentences))

    def of_lines(self, pattern: re.Pattern[str]) -> float:
        """Square root of the share of lines that begin with the pattern."""
        return _root(sum(pattern.match(line) is not None for line in self.lines), len(self.lines))

    def of_sentences(self, sign: str) -> float:
        """Square root of the share of sentences with the sign."""
        return _root(sum(sign in sentence for sentence in self.sentences), len(self.sentences))

    def signs(self, signs: str) -> float:
        """Square root of the number of these signs per word."""
        return _root(sum(self.text.count(sign) for sign in signs), self.n_words)

    def numbers(self) -> float:
        """Square root of the share of numbers among words and numbers."""
        found = len(_NUMBER.findall(self.text))
        return _root(found, found + self.n_words)

    def variety(self) -> float:
        """Chance that two words of the text differ: 1 − Σ c(c − 1) / N(N − 1), over the counts c of each word.

        In expectation it does not depend on the length (E. H. Simpson, Nature 163, 1949).  A sentence that is repeated
        counts once.
        """
        words = [word for sentence in dict.fromkeys(map(tuple, map(_words, self.sentences))) for word in sentence]
        n = len(words)
        if n < 2:
            return 1 - _PROSE if n else 0.0
        return 1 - sum(count * (count - 1) for count in Counter(words).values()) / (n * (n - 1))

    def mean(self, values: Sequence[float]) -> float:
        return float(np.mean(values)) if len(values) else 0.0


def _words(text: str) -> list[str]:
    return [word.lower().replace("’", "'") for word in _WORD.findall(text)]


def _root(part: int, whole: int) -> float:
    return float(np.sqrt(part / whole)) if whole else 0.0


# name -> (measure, words for more of it, words for less of it)
_FEATURES: dict[str, tuple[Callable[[_Parts], float], str, str]] = {
    "length": (lambda p: float(np.log1p(p.n_words)), "longer answers", "shorter answers"),
    "sentences": (lambda p: float(np.log1p(len(p.sentences))), "more sentences", "fewer sentences"),
    "sentence_length": (
        lambda p: float(np.log1p(p.n_words / max(1, len(p.sentences)))),
        "long sentences",
        "short sentences",
    ),
    "word_length": (lambda p: p.mean([len(word) for word in p.words]) / 5, "longer words", "shorter words"),
    "lines": (lambda p: float(np.log1p(p.text.count("\n"))), "more line breaks", "fewer line breaks"),
    "lists": (lambda p: p.of_lines(_LIST_ITEM), "lists", "running text rather than lists"),
    "headings": (lambda p: p.of_lines(_HEADING), "headings", "no headings"),
    "code": (lambda p: p.rate(_CODE), "code", "no code"),
    "bold": (lambda p: p.rate(_BOLD), "bold words", "no bold words"),
    "questions": (lambda p: p.of_sentences("?"), "questions back to the reader", "no questions back"),
    "exclamations": (lambda p: p.of_sentences("!"), "exclamations", "a calm tone without exclamations"),
    "hedging": (lambda p: p.share(_HEDGES), "careful, hedged wording", "wording without hedges"),
    "certainty": (lambda p: p.share(_CERTAIN), "certain, assertive wording", "wording that claims less"),
    "second_person": (lambda p: p.share(_SECOND), "answers that speak to you", "answers that do not say you"),
    "first_person": (lambda p: p.share(_FIRST), "answers in the first person", "impersonal answers"),
    "warmth": (lambda p: p.share(_WARM), "warm, friendly wording", "plain, matter-of-fact wording"),
    "digits": (lambda p: p.numbers(), "numbers and figures", "few numbers"),
    "examples": (lambda p: p.rate(_EXAMPLE), "examples", "no examples"),
    "steps": (lambda p: p.rate(_STEP), "step-by-step order", "no step-by-step order"),
    "contrast": (lambda p: p.rate(_CONTRAST), "several points of view", "one line of thought"),
    "reasons": (lambda p: p.rate(_REASON), "reasons given", "claims without reasons"),
    "refusal": (lambda p: p.rate(_REFUSAL), "answers that decline or apologise", "answers that do not decline"),
    "contractions": (
        lambda p: float(np.sqrt(p.mean(["'" in word for word in p.words]))),
        "informal contractions",
        "formal wording without contractions",
    ),
    "abstract_words": (
        lambda p: float(np.sqrt(p.mean([bool(_LATINATE.search(word)) for word in p.words]))),
        "abstract, learned words",
        "concrete, everyday words",
    ),
    "variety": (lambda p: p.variety(), "a varied vocabulary", "a repetitive vocabulary"),
    "punctuation": (lambda p: p.signs(",;:()—"), "commas, colons and asides", "little punctuation"),
    "quotes": (lambda p: p.signs('"“”«»'), "quotations", "no quotations"),
    "capitals": (
        lambda p: p.mean([char.isupper() for char in p.text if char.isalpha()]),
        "capital letters",
        "lower case",
    ),
    "other_script": (
        lambda p: p.mean([ord(char) > 0x24F for char in p.text if not char.isspace()]),
        "symbols and other scripts",
        "plain letters",
    ),
    "ends_open": (
        lambda p: float(bool(p.text) and p.text[-1] not in ".!?…\"”')]}`*"),
        "answers that stop mid-sentence",
        "answers that end properly",
    ),
}

FEATURE_NAMES: tuple[str, ...] = tuple(_FEATURES)
FEATURE_WORDS: dict[str, tuple[str, str]] = {name: (more, less) for name, (_, more, less) in _FEATURES.items()}


def measure(text: str) -> np.ndarray:
    """Style features of one text, (F,) float32, in the order of ``FEATURE_NAMES``; the empty text is near zero."""
    parts = _Parts(text)
    return np.array([function(parts) for function, _, _ in _FEATURES.values()], np.float32)


def measure_many(texts: Sequence[str]) -> np.ndarray:
    """Style features of many texts, (T, F) float32."""
    return np.stack([measure(text) for text in texts]) if len(texts) else np.zeros((0, len(FEATURE_NAMES)), np.float32)
