"""The demo, and a file of labels, as worlds in which accounts lie (``lying_world.World``).

Of the demo the attacked group is one of its five tastes, and the *source* of a response is the taste that it suits
best.  A tenth of each person's pairs is answered once more, by the model that answered them before.

Of a file the sources are the language models that wrote the responses.  The attacked group is the smallest of the map
with five people or more, of llmfao almost everybody; lying accounts know what the graph predicts of it, as everybody
reads it on its pages.  The file has no repeated pairs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.forget import embedded
from benchmarks.lying_world import MANY, REPEATS, World, answer_table, counts_for, joined
from copl_core.demo.world import answer, demo_rows, study_prompts, tastes, utility
from copl_core.evaluation.dataset import EvalDataset, build_dataset
from copl_core.formats.own import read_rows
from copl_core.insight.controversy import member_preferences
from copl_core.insight.groups import find_groups
from copl_core.insight.layout import answer_space
from copl_core.preference.config import GraphConfig
from copl_core.preference.state import GraphState
from copl_core.records import Choice, Comparisons, ImportRow
from copl_core.study_settings import AnswerTable
from copl_core.training.graph_fit import fit_graph

HELD_OUT = 0.1  # of the labels, for accuracies
ATTACKED = 0  # the taste of the demo
MEMBERS = 4  # as the trainer fits so few labels
FEWEST = 5  # people of the attacked group of a file
_LEFT, _RIGHT = list(Choice).index(Choice.LEFT), list(Choice).index(Choice.RIGHT)


def demo_world(seed: int) -> World:
    split = _split([row for row in demo_rows(seed) if row.choice is not None], seed)
    every = list(tastes().values())
    suits = {
        (prompt.prompt, one.text): [utility(taste, one.style) for taste in every]
        for prompt in study_prompts()
        for one in prompt.responses
    }
    data = split.train
    texts = [(data.prompts[prompt], text) for prompt, text in zip(data.response_prompt, data.responses, strict=True)]
    utilities = np.array([suits[text] for text in texts])  # (R, tastes)
    source, pairs = utilities.argmax(1), _pairs_within(data.response_prompt)
    taste = np.array([[one.name for one in every].index(str(split.groups[user])) for user in range(data.n_users)])
    gap = utilities[pairs[:, 0]] - utilities[pairs[:, 1]]
    group = (taste == ATTACKED).astype(int)
    liked = np.stack([np.delete(gap, ATTACKED, 1).mean(1) > 0, gap[:, ATTACKED] > 0])
    answers = _answers(data.labels, pairs)
    answers = joined(answers, _again(answers, gap[:, taste], pairs, seed))
    return World(
        "demo",
        data,
        embedded(split),
        pairs,
        source,
        _middle(gap[:, ATTACKED], source, pairs),
        group,
        liked,
        answers,
        _test(split),
        counts_for(np.bincount(answers.user), len(pairs)),
        members=MEMBERS,
    )


def file_world(path: Path, seed: int) -> World:
    """A world of a file whose responses name their sources, such as ``llmfao.jsonl.gz``."""
    rows = [row for row in read_rows(path, []) if row.choice is not None]
    split = _split(rows, seed)
    data, phi = split.train, embedded(split)
    names = {(row.prompt, text): source for row in rows
             for text, source in ((row.response_a, row.source_a), (row.response_b, row.source_b))}  # fmt: skip
    texts = [(data.prompts[prompt], text) for prompt, text in zip(data.response_prompt, data.responses, strict=True)]
    source = np.unique([str(names[text]) for text in texts], return_inverse=True)[1]
    pairs = np.unique(np.sort(np.column_stack([data.labels.left, data.labels.right]), 1), axis=0)
    state = fit_graph(data, phi, GraphConfig.build(members=1), seed=seed)
    group = smallest_group(state)
    margin = [
        member_preferences(state, state.user_vectors[group == one], pairs).mean((0, 1)) - 0.5 for one in (0, 1)
    ]  # (2, P)
    return World(
        path.name.partition(".")[0],
        data,
        phi,
        pairs,
        source,
        _middle(margin[1], source, pairs),
        group,
        np.stack(margin) > 0,
        _answers(data.labels, pairs),
        _test(split),
        counts_for(np.bincount(data.labels.user), min(MANY, len(pairs))),
        repeats=False,
    )


def smallest_group(state: GraphState) -> np.ndarray:
    """(U,) 1 for the people of the smallest group of the map with at least ``FEWEST``."""
    known = np.flatnonzero(state.n_labels > 0)
    found = find_groups(state.user_vectors[known] @ answer_space(state), state.n_labels[known]).group
    size = np.bincount(found)
    chosen = int(np.where(size >= FEWEST, size, size.max() + 1).argmin())
    group = np.zeros(len(state.user_ids), int)
    group[known[found == chosen]] = 1
    return group


def _split(rows: list[ImportRow], seed: int) -> EvalDataset:
    held = np.random.default_rng(seed).random(len(rows)) < HELD_OUT
    return build_dataset(
        [row for row, out in zip(rows, held, strict=True) if not out],
        [row for row, out in zip(rows, held, strict=True) if out],
    )


def _pairs_within(prompt: np.ndarray) -> np.ndarray:
    """(P, 2) all pairs of responses to one prompt."""
    first, second = np.triu_indices(len(prompt), 1)
    same = prompt[first] == prompt[second]
    return np.column_stack([first[same], second[same]])


def _answers(labels: Comparisons, pairs: np.ndarray) -> AnswerTable:
    """Labels as answers that took eight seconds each; the first response of a pair is on the left."""
    first, second = np.minimum(labels.left, labels.right), np.maximum(labels.left, labels.right)
    n = int(pairs.max()) + 1
    pair = np.searchsorted(pairs @ [n, 1], first * n + second)
    ahead = np.where(labels.left == first, labels.outcome, 1 - labels.outcome)
    choice = np.where(ahead > 0.5, _LEFT, np.where(ahead < 0.5, _RIGHT, list(Choice).index(Choice.TIE)))
    return answer_table(labels.user, pair, choice, np.full(len(pair), 8000), pairs)


def _again(answers: AnswerTable, gap: np.ndarray, pairs: np.ndarray, seed: int) -> AnswerTable:
    """A second answer to a tenth of the pairs, by the gap (P, U) of the person's utilities."""
    rng = np.random.default_rng([seed, 3])
    rows = np.flatnonzero(rng.random(len(answers)) < REPEATS)
    user, pair = answers.user[rows], answers.pair[rows]
    choice = [list(Choice).index(answer(float(one), rng)) for one in gap[pair, user]]
    return answer_table(user, pair, np.array(choice, np.int64), np.full(len(rows), 8000), pairs)


def _middle(margin: np.ndarray, source: np.ndarray, pairs: np.ndarray) -> int:
    """The source in the middle of the group's order, by how much the first response of each pair (P,) is preferred."""
    both = source[pairs].T.ravel()
    liked = np.bincount(both, np.concatenate([margin, -margin])) / np.maximum(np.bincount(both), 1)
    return int(np.argsort(-liked)[len(liked) // 2])


def _test(split: EvalDataset) -> Comparisons:
    """Decided test labels of known people about known responses."""
    return split.test.take(np.flatnonzero(~split.new_user & ~split.new_text & split.test.decided))
