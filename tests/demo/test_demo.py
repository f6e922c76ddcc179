"""The demo study: real texts, plainly different styles, users whose taste is known and whose labels are noisy."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import combinations

import numpy as np
import pytest

from copl_core.demo import world
from copl_core.records import Choice, CoplError, Kind

PROMPTS = world.load_prompts()
RESPONSES = [response for prompt in PROMPTS for response in prompt.responses]
STYLES = np.array([[response.style[axis] for axis in world.AXES] for response in RESPONSES])  # (208, 6)
STYLE_OF = {response.text: response.style for response in RESPONSES}
PROMPT_OF = np.repeat(np.arange(len(PROMPTS)), world.RESPONSES_PER_PROMPT)
HEDGES = r"\b(probably|perhaps|might|may|maybe|could|likely|possibly|seems?|appears?|depend\w*|tends?|presumably)\b"
KINDNESS = (
    r"\b(lovel?y|kind\w*|gentl[ey]|please|sorry|proud|enjoy|glad|sympathy|heart\w*|wonderful|patient|brave"
    r"|delight\w*|worry|friend|dear|deserve|happ\w+|promise|poor|well done|good (on|for) you)\b"
)
LIST_ITEM = r"(?m)^\s*(-|\d+\.) "


@pytest.fixture(scope="module")
def rows():
    return list(world.demo_rows())


@pytest.fixture(scope="module")
def labels(rows):
    return [row for row in rows if row.annotator]


def gap_of(row) -> float:
    """u(left) − u(right) of a row, under the taste of its user."""
    taste = world.tastes()[row.true_group]
    return world.utility(taste, STYLE_OF[row.response_a]) - world.utility(taste, STYLE_OF[row.response_b])


def count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text, re.IGNORECASE))


def test_there_are_52_prompts_with_four_distinct_responses_each():
    assert len({prompt.prompt for prompt in PROMPTS}) == len({prompt.slug for prompt in PROMPTS}) == 52
    assert all(len({response.text for response in prompt.responses}) == 4 for prompt in PROMPTS)
    assert len({response.text for response in RESPONSES}) == 208


def test_two_prompts_are_held_back_and_appear_in_no_row(rows):
    kept = {prompt.prompt for prompt in world.held_back()}
    assert len(kept) == 2
    assert kept.isdisjoint(row.prompt for row in rows)
    assert {row.prompt for row in rows} | kept == {prompt.prompt for prompt in PROMPTS}


def test_every_pair_comes_once_unlabelled_and_before_all_labels(rows):
    pairs = [row for row in rows if not row.annotator]
    assert rows[:300] == pairs
    assert len({(row.prompt, frozenset((row.response_a, row.response_b))) for row in pairs}) == 300
    assert all(row.choice is None and row.true_group is None for row in pairs)


def test_every_label_is_of_a_pair_in_the_study(rows, labels):
    pairs = {(row.prompt, frozenset((row.response_a, row.response_b))) for row in rows[:300]}
    assert all((row.prompt, frozenset((row.response_a, row.response_b))) in pairs for row in labels)


def test_thirty_simulated_users_hold_each_taste(labels):
    taste_of = {(row.annotator, row.true_group) for row in labels}
    assert len({name for name, _ in taste_of}) == len(taste_of) == 150
    assert Counter(taste for _, taste in taste_of) == dict.fromkeys(world.tastes(), 30)
    assert all(row.kind is Kind.SIMULATED for row in labels)


def test_every_user_gives_six_to_thirty_labels_and_none_twice(labels):
    answered = defaultdict(list)
    for row in labels:
        answered[row.annotator].append((row.prompt, frozenset((row.response_a, row.response_b))))
    assert all(6 <= len(pairs) <= 30 and len(set(pairs)) == len(pairs) for pairs in answered.values())


def test_sides_are_balanced_within_three_sigma(labels):
    first = sum(row.choice is Choice.LEFT for row in labels)
    decided = sum(row.choice in (Choice.LEFT, Choice.RIGHT) for row in labels)
    assert abs(first - decided / 2) < 3 * np.sqrt(decided) / 2


def test_labels_follow_the_taste_with_a_little_noise_and_a_few_ties(labels):
    signs = np.array([{Choice.LEFT: 1, Choice.RIGHT: -1}.get(row.choice, 0) for row in labels])
    gaps = np.array([gap_of(row) for row in labels])
    assert 0.08 < np.mean(signs * gaps < 0) < 0.16
    assert 0.03 < np.mean(signs == 0) < 0.09
    assert np.abs(gaps[signs == 0]).mean() < np.abs(gaps[signs != 0]).mean()


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(rows):
    assert list(world.demo_rows(0)) == rows
    assert list(world.demo_rows(1)) != rows


def test_keys_are_unique_and_lines_count_from_one(rows):
    assert len({row.key for row in rows}) == len(rows)
    assert all(row.key.startswith("demo:") for row in rows)
    assert [row.line for row in rows] == list(range(1, len(rows) + 1))


def test_the_axes_of_style_are_not_confounded():
    correlations = np.corrcoef(STYLES.T) - np.eye(len(world.AXES))
    assert np.abs(correlations).max() < 0.1


def test_any_two_tastes_disagree_about_a_third_of_pairs():
    weights = np.array([taste.weights for taste in world.tastes().values()])  # (5, 6)
    steps = np.array(
        [STYLES[a] - STYLES[b] for a, b in combinations(range(len(STYLES)), 2) if PROMPT_OF[a] == PROMPT_OF[b]]
    )
    preferred = np.sign((steps @ weights.T).round(9))  # (312, 5)
    disagreement = [np.mean(preferred[:, i] * preferred[:, j] < 0) for i, j in combinations(range(5), 2)]
    assert min(disagreement) > 0.35


def test_longer_styles_have_more_words():
    words = np.array([len(response.text.split()) for response in RESPONSES])
    short, middle, thorough = (words[STYLES[:, 0] == level] for level in (-1, 0, 1))
    assert short.max() < middle.min() <= middle.max() < thorough.min()
    assert np.median(short) < 50 < np.median(middle) < 110 < np.median(thorough)


def test_lists_stand_exactly_where_they_are_declared():
    listed = [count(LIST_ITEM, response.text) > 0 for response in RESPONSES]
    assert listed == [response.style["structure"] == 1 for response in RESPONSES]


def test_examples_stand_exactly_where_they_are_declared():
    shown = [count(r"for (example|instance)|```", response.text) > 0 for response in RESPONSES]
    assert shown == [response.style["example"] == 1 for response in RESPONSES]


def test_hedged_responses_hedge_and_firm_ones_hardly():
    hedges = np.array([count(HEDGES, response.text) for response in RESPONSES])
    level = STYLES[:, world.AXES.index("hedging")]
    assert hedges[level == 1].min() >= 2
    assert hedges[level == -1].max() <= 1


def test_formal_responses_have_no_contractions_and_playful_ones_often_do():
    contracted = np.array([count(r"\w'(t|re|ll|ve|d)\b", response.text) > 0 for response in RESPONSES])
    level = STYLES[:, world.AXES.index("play")]
    assert not contracted[level == -1].any()
    assert contracted[level == 1].mean() > 0.6


def test_warm_responses_address_the_reader_kindly():
    warmth = STYLES[:, world.AXES.index("warmth")]
    warm = [response.text for response, level in zip(RESPONSES, warmth, strict=True) if level == 1]
    cool = [response.text for response, level in zip(RESPONSES, warmth, strict=True) if level == -1]
    assert all(count(r"\byou", text) for text in warm)
    assert np.mean([count(KINDNESS, text) for text in warm]) > 4 * np.mean([count(KINDNESS, text) for text in cool])


def test_texts_speak_of_no_machine_and_carry_no_emoji():
    texts = [prompt.prompt for prompt in PROMPTS] + [response.text for response in RESPONSES]
    assert not [text for text in texts if re.search(r"\bAI\b|language model|as an assistant", text)]
    assert not [text for text in texts if re.search("[\u2600-\u27bf\ufe0f\U0001f000-\U0010ffff]", text)]


def test_a_prompt_without_four_responses_or_a_whole_style_is_refused():
    one = {"text": "Yes.", "style": dict.fromkeys(world.AXES, 0)}
    entry = {"slug": "s", "topic": "t", "text": "Why?", "response": [one] * 4}
    assert world._prompt(entry).responses[0].text == "Yes."
    with pytest.raises(CoplError, match="has 3 responses"):
        world._prompt(entry | {"response": [one] * 3})
    with pytest.raises(CoplError, match="declares the style"):
        world._prompt(entry | {"response": [one] * 3 + [one | {"style": {"length": 2}}]})


def test_the_demo_loads_without_torch():
    code = "import sys, copl_core.demo.world as w; next(w.demo_rows()); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
