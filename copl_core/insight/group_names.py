"""Names of groups, made from what each prefers more than the others do: "Short, unhedged".  Numpy only.

A name says one or two *traits*: a feature of the texts and a direction.  Traits that the group's labels show come
first, then those that only the model expects, strongest first (``insight.describe``).  No two groups of a snapshot have
the same traits.  A group keeps its traits from snapshot to snapshot until one of them has become clearly weaker than
those that a new name would say, so that a name does not change with every fit.

A group that no counted feature distinguishes is named by a word, where a found feature (``insight.found_features``)
distinguishes it with certainty and one word tells the texts apart: "Often “tea”".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain, combinations

import numpy as np

from copl_core.features import FEATURE_NAMES
from copl_core.insight import describe, taste
from copl_core.insight.describe import Contrast
from copl_core.preference.state import GraphState

NamedFeature = tuple[str, int]  # feature, and +1 for more of it or −1 for less
GroupFeatures = dict[int, tuple[NamedFeature, ...]]  # by group

_USERS = 4000  # users from which the traits are computed; of more, always the same sample
_PAIRS = 400  # labelled pairs with predictions
_MOST_TRAITS = 5  # per group, among which a name is looked for
_CLEARLY = 0.5  # of the strength of a new name's traits, below which an old name is given up

_FEWEST_TEXTS = 6  # on either side of a found feature, of different prompts
_MOSTLY, _HARDLY = 0.75, 0.1  # shares of the preferred texts and of the others that have the word of a name
_WORD = re.compile(r"[^\W\d_]{3,20}")

# Words of a name for more and for less of a feature.
SHORT_WORDS: dict[str, tuple[str, str]] = {
    "length": ("long", "short"),
    "sentences": ("many sentences", "few sentences"),
    "sentence_length": ("long sentences", "short sentences"),
    "word_length": ("long words", "short words"),
    "lines": ("many line breaks", "few line breaks"),
    "lists": ("lists", "running text"),
    "headings": ("headings", "no headings"),
    "code": ("code", "no code"),
    "bold": ("bold words", "no bold words"),
    "questions": ("asking back", "no questions"),
    "exclamations": ("lively", "calm"),
    "hedging": ("hedged", "unhedged"),
    "certainty": ("assertive", "claiming less"),
    "second_person": ("speaking to you", "not saying you"),
    "first_person": ("first person", "impersonal"),
    "warmth": ("warm", "matter-of-fact"),
    "digits": ("figures", "few figures"),
    "examples": ("examples", "no examples"),
    "steps": ("step by step", "no steps"),
    "contrast": ("several views", "one line of thought"),
    "reasons": ("reasons", "no reasons"),
    "refusal": ("declining", "not declining"),
    "contractions": ("informal", "formal"),
    "abstract_words": ("abstract", "concrete"),
    "variety": ("varied words", "repeated words"),
    "punctuation": ("asides", "little punctuation"),
    "quotes": ("quotations", "no quotations"),
    "capitals": ("capitals", "lower case"),
    "other_script": ("symbols", "plain letters"),
    "ends_open": ("cut off", "complete"),
}


def name_of(group: int, traits: tuple[NamedFeature, ...]) -> str:
    """The name of a group: its traits in short words, or its number where it has none."""
    words = [SHORT_WORDS[feature][0 if way > 0 else 1] for feature, way in traits if feature in SHORT_WORDS]
    if not words:
        return f"Group {group + 1}"
    return f"{words[0][0].upper()}{', '.join(words)[1:]}"


def word_of(preferred: Sequence[str], others: Sequence[str]) -> str | None:
    """The word that names what nobody counts: in most of the preferred texts and in hardly any of the others.

    None where no word is as clear as that, or where there are too few texts to tell.
    """
    if min(len(preferred), len(others)) < _FEWEST_TEXTS:
        return None
    inside, outside = (
        Counter(chain.from_iterable(set(_WORD.findall(text.casefold())) for text in texts))
        for texts in (preferred, others)
    )
    clear = [
        word for word, n in inside.items() if n >= _MOSTLY * len(preferred) and outside[word] <= _HARDLY * len(others)
    ]
    return min(clear, key=lambda word: (outside[word] - inside[word], -len(word), word), default=None)


def group_traits(
    state: GraphState, group: np.ndarray, styles: np.ndarray, before: GroupFeatures | None = None
) -> GroupFeatures:
    """What each group's name is made of; groups that nothing distinguishes with certainty are left out.

    Args:
        group: (U,) group of each user row of the graph, −1 for none.
        styles: (R, F) features of the graph's responses, NaN for those that were not measured.
        before: the traits that the groups of these numbers had in the snapshot before.
    """
    numbers = np.unique(group[group >= 0]).tolist()
    if len(numbers) < 2:
        return {number: traits for number, traits in (before or {}).items() if number in numbers}
    contrasts, correlation = _contrasts(state, group, styles, numbers)
    found = {number: _candidates(*contrasts[number], correlation) for number in numbers}
    named: GroupFeatures = {}
    for number in numbers:
        old = (before or {}).get(number, ())
        if old and _set(old) not in map(_set, named.values()) and _still_holds(old, found[number], contrasts[number]):
            named[number] = old
    for number in numbers:
        if number not in named and (traits := _first_free(found[number], named)):
            named[number] = traits
    return {number: named[number] for number in numbers if number in named}


def _contrasts(
    state: GraphState, group: np.ndarray, styles: np.ndarray, numbers: list[int]
) -> tuple[dict[int, tuple[Contrast | None, Contrast | None]], np.ndarray]:
    """Of each group (by its labels, by the model) against the others, and the correlation (F, F) of the features."""
    rows = np.flatnonzero(group >= 0)
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _USERS)).astype(int)]
    pairs = _labelled_pairs(state, styles)
    differences = styles[pairs[:, 0]] - styles[pairs[:, 1]]
    scale = taste.typical(differences)
    standardised = differences / scale
    by_labels, counts = describe.label_leanings(state, styles, scale, rows)
    by_model = describe.model_leanings(state, pairs, standardised, rows)
    found = {}
    for number in numbers:
        inside = group[rows] == number
        found[number] = (
            describe.contrast(by_labels, inside, int(counts[inside].sum()), np.random.default_rng(number)),
            describe.contrast(by_model, inside, len(pairs), np.random.default_rng(number)),
        )
    return found, taste.correlations(standardised)


def _labelled_pairs(state: GraphState, styles: np.ndarray) -> np.ndarray:
    """Response rows (P, 2) of labelled pairs whose texts are measured; of many, always the same sample."""
    pairs = np.unique(np.stack([state.labels.left, state.labels.right], 1), axis=0)
    pairs = pairs[np.isfinite(styles[pairs]).all((1, 2))]
    if len(pairs) > _PAIRS:
        pairs = pairs[np.sort(np.random.default_rng(0).choice(len(pairs), _PAIRS, replace=False))]
    return pairs


def _candidates(by_labels: Contrast | None, by_model: Contrast | None, correlation: np.ndarray) -> list[NamedFeature]:
    """The traits that a group's name may say, best first."""
    found: list[NamedFeature] = []
    for contrast, against in ((by_labels, None), (by_model, by_labels)):
        if contrast is None:
            continue
        for one in describe.statements(contrast, correlation, against=against):
            index = FEATURE_NAMES.index(one.feature)
            near = [abs(correlation[index, FEATURE_NAMES.index(other)]) >= taste.ALIKE for other, _ in found]
            if one.feature not in dict(found) and not any(near):
                found.append((one.feature, 1 if one.effect > 0 else -1))
    return found[:_MOST_TRAITS]


def _first_free(found: list[NamedFeature], named: GroupFeatures) -> tuple[NamedFeature, ...]:
    """The best two traits, or the best one where there is no other, that no group is named by yet."""
    ways = [*combinations(found, 2), *((one,) for one in found)]
    taken = list(map(_set, named.values()))
    return next((way for way in ways if _set(way) not in taken), ())


def _still_holds(
    old: tuple[NamedFeature, ...], found: list[NamedFeature], contrasts: tuple[Contrast | None, Contrast | None]
) -> bool:
    """Whether an old name is still true, and nearly as telling as the new one would be."""
    strengths = [_strength(trait, contrasts) for trait in old]
    new = [_strength(trait, contrasts) for trait in found[: len(old)]]
    return min(strengths) > 0 and min(strengths) >= _CLEARLY * min(new, default=0.0)


def _strength(trait: NamedFeature, contrasts: tuple[Contrast | None, Contrast | None]) -> float:
    """d in the trait's direction, by the labels or by the model, whichever shows more; −1 where labels contradict."""
    feature, way = trait
    if feature not in FEATURE_NAMES:
        return -1.0
    index = FEATURE_NAMES.index(feature)
    known = [float(np.nan_to_num(one.d[index])) * way for one in contrasts if one is not None]
    if not known:
        return 1.0  # too few users to say anything: nothing speaks against the name
    return -1.0 if known[0] < 0 and contrasts[0] is not None else max(known)


def _set(traits: tuple[NamedFeature, ...]) -> frozenset[NamedFeature]:
    return frozenset(traits)
