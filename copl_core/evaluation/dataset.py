"""Training and test labels of two sets of rows, numbered in one table of users and one of texts.  Numpy only.

Rows of the training data come first in every table, so a user or text past the end of the training data is new.  The
first K labels of each new user, in file order, are context; context labels are never scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from copl_core.formats.leaks import LeakCheck, Leaks
from copl_core.insight.ceiling import Ceiling, ceiling_of
from copl_core.records import Choice, Comparisons, CoplError, ImportRow, TrainingData
from copl_core.tags import Tags
from copl_core.training.split import LabelSplit

T = TypeVar("T", bound=Any)
OUTCOMES: dict[Choice | None, float] = {Choice.LEFT: 1.0, Choice.RIGHT: 0.0, Choice.TIE: 0.5, Choice.BOTH_BAD: 0.5}
NEW_SHARE = 0.2  # of the prompts, or of the responses, of a single file that are held out from training


@dataclass(frozen=True)
class EvalDataset(LabelSplit):
    """Training, test and context labels with the users and texts that they refer to."""

    prompts: tuple[str, ...]
    texts: tuple[tuple[str, str], ...]  # (R_all,) prompt and response
    users: tuple[str, ...]  # (U_all,)
    groups: tuple[str | None, ...] = ()  # (U_all,) the group if all rows of the user name the same one, else None
    test_groups: tuple[str | None, ...] = ()  # (N,) group of each test row
    n_swapped: int = 0  # the last so many test labels belong to the user-swap control: they are scored, never fitted
    context_tags: Tags | None = None  # of the context labels; those of the training labels are in ``train``

    @property
    def n_users(self) -> int:
        return len(self.users)


EmbedTexts = Callable[[], np.ndarray]  # → φ (R_all, P) of the texts of a dataset, computed at the first call
Method = Callable[[EvalDataset, EmbedTexts, int], np.ndarray]  # dataset, embeddings, seed → log-odds (N,) of left


def build_dataset(train_rows: Iterable[ImportRow], test_rows: Iterable[ImportRow], context: int = 0) -> EvalDataset:
    """Number the users and texts of both sets of rows.

    Args:
        context: labels of each new user that are given and not scored.
    Raises:
        CoplError: one of the sets holds no label, all training labels are ties, or no decided test label remains.
    """
    train_rows, test_rows = [r for r in train_rows if _is_label(r)], [r for r in test_rows if _is_label(r)]
    for rows, name in ((train_rows, "training"), (test_rows, "test")):
        if not rows:
            raise CoplError(
                f"The {name} file holds no label: rows with prompt, response_a, response_b, choice and "
                "annotator are needed."
            )
    users: dict[str, int] = {}
    texts: dict[tuple[str, str], int] = {}
    prompts: dict[str, int] = {}
    train_labels = _numbered(train_rows, users, texts, prompts)
    if not train_labels.decided.any():
        raise CoplError(
            f"All {len(train_labels)} training labels are ties, so no preference can be learned: "
            "give labels that prefer one response."
        )
    n_users, n_texts, n_prompts = len(users), len(texts), len(prompts)
    test_labels = _numbered(test_rows, users, texts, prompts)
    known_texts, known_prompts = tuple(texts)[:n_texts], tuple(prompts)[:n_prompts]
    train = TrainingData(
        user_ids=np.arange(n_users),
        response_ids=np.arange(n_texts),
        response_prompt=np.array([prompts[prompt] for prompt, _ in known_texts], np.int64),
        prompts=known_prompts,
        responses=tuple(text for _, text in known_texts),
        labels=train_labels,
        tags=tags_of(train_rows),
    )
    is_context = first_labels(test_labels.user, context) & (test_labels.user >= n_users)
    context_rows, scored = np.flatnonzero(is_context), test_labels.take(np.flatnonzero(~is_context))
    if not scored.decided.any():
        raise CoplError(
            "No decided test label remains: every test label is a tie or was given as context. "
            "Use a smaller --context or a larger test file."
        )
    return EvalDataset(
        train,
        scored,
        test_labels.take(context_rows),
        tuple(prompts),
        tuple(texts),
        tuple(users),
        tuple(map(groups_of(train_rows + test_rows).get, users)),
        tuple(row.true_group for row, given in zip(test_rows, is_context, strict=True) if not given),
        context_tags=tags_of([test_rows[row] for row in context_rows.tolist()]),
    )


def only_new_prompts(
    train_rows: Sequence[ImportRow], test_rows: Sequence[ImportRow], seed: int, same: bool
) -> tuple[list[ImportRow], list[ImportRow]]:
    """Training rows, and the test rows with prompts that no training row has.

    ``same`` means that both come from one file: a fifth of its prompts, drawn by the seed, is held out from training.

    Raises:
        CoplError: a single file has one prompt, or every test row has a prompt of the training rows.
    """
    if not test_rows:
        raise CoplError("There is no test label: give rows with a choice and an annotator.")
    if same:
        held_out = _drawn({row.prompt for row in test_rows}, seed, "prompt")
        train_rows = [row for row in train_rows if row.prompt not in held_out]
    known = {row.prompt for row in train_rows}
    test_of_new = [row for row in test_rows if row.prompt not in known]
    if not test_of_new:
        raise CoplError(
            f"All {len(test_rows)} test labels are about prompts of the training file, and --new-prompts "
            "needs others: give a TEST with new prompts, or one file with several prompts for both."
        )
    return list(train_rows), test_of_new


def only_new_texts(
    train_rows: Sequence[ImportRow], test_rows: Sequence[ImportRow], seed: int, same: bool
) -> tuple[list[ImportRow], list[ImportRow]]:
    """Training rows, and the test rows of which no training row has either response.

    ``same`` means that both come from one file: a fifth of its responses, drawn by the seed, is held out.  Rows with
    one of them and one other are in neither set.  A response is one to its prompt.

    Raises:
        CoplError: a single file has too few responses, or every test row has a response of the training rows.
    """
    if not test_rows:
        raise CoplError("There is no test label: give rows with a choice and an annotator.")
    if same:
        held_out = _drawn({text for row in test_rows for text in _texts(row)}, seed, "text")
        train_rows = [row for row in train_rows if held_out.isdisjoint(_texts(row))]
        test_rows = [row for row in test_rows if held_out.issuperset(_texts(row))]
    known = {text for row in train_rows for text in _texts(row)}
    test_of_new = [row for row in test_rows if known.isdisjoint(_texts(row))]
    if not test_of_new:
        found = (
            "No label is about two of the responses that --new-texts holds out"
            if same
            else f"All {len(test_rows)} test labels are about a response of the training file, and --new-texts needs "
            "two others"
        )
        raise CoplError(f"{found}: give a TEST about new responses, or one file with more labels for both.")
    return list(train_rows), test_of_new


def _texts(row: ImportRow) -> tuple[tuple[str, str], tuple[str, str]]:
    return (row.prompt, row.response_a), (row.prompt, row.response_b)


def _drawn(names: set[T], seed: int, what: str) -> set[T]:
    ordered = sorted(names)
    if len(ordered) < 2:
        raise CoplError(
            f"The file has {len(ordered)} {what}, and --new-{what}s needs two or more: leave --new-{what}s out."
        )
    share = max(1, round(NEW_SHARE * len(ordered)))
    return {ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))[:share]}


def with_swapped_users(dataset: EvalDataset, seed: int) -> EvalDataset:
    """The dataset with its test labels twice: unchanged, then with the user replaced by another random test user."""
    test = dataset.test
    users = np.unique(test.user)
    if len(users) < 2:
        raise CoplError("The user-swap control needs two test users, and the test file has one: leave --controls out.")
    shift = np.random.default_rng(seed).integers(1, len(users), size=len(test))
    swapped = users[(np.searchsorted(users, test.user) + shift) % len(users)]
    return replace(
        dataset,
        test=test.joined(replace(test, user=swapped)),
        test_groups=dataset.test_groups * 2,
        n_swapped=len(test),
    )


def without_swapped_users(dataset: EvalDataset) -> EvalDataset:
    """The dataset with its real test labels only: what a fit may read, with or without the user-swap control."""
    real = np.arange(len(dataset.test) - dataset.n_swapped)
    return replace(dataset, test=dataset.test.take(real), test_groups=dataset.test_groups[: len(real)], n_swapped=0)


def flipped(dataset: EvalDataset) -> EvalDataset:
    """The dataset with the opposite outcome in every training and context label, which have no reasons then."""
    train = dataset.train.with_labels(opposite(dataset.train.labels))
    return replace(dataset, train=train, context=opposite(dataset.context), context_tags=None)


def opposite(labels: Comparisons) -> Comparisons:
    """The labels with the opposite outcome in each."""
    return replace(labels, outcome=1 - labels.outcome)


def leaks(dataset: EvalDataset) -> Leaks:
    """What the test labels share with the labels that are learned or given as context."""
    check = LeakCheck()
    for labels, test in ((dataset.train.labels.joined(dataset.context), False), (dataset.test, True)):
        columns = labels.user.tolist(), labels.left.tolist(), labels.right.tolist()
        for user, left, right in zip(*columns, strict=True):
            check.add(user, dataset.texts[left], dataset.texts[right], test=test)
    return check.found()


def ceiling_of_repeats(dataset: EvalDataset) -> Ceiling | None:
    """The accuracy that self-consistency allows, from pairs that somebody labels more than once in all labels together;
    None with too few of them."""
    test = without_swapped_users(dataset).test
    labels = dataset.train.labels.joined(dataset.context).joined(test)
    labels = labels.take(labels.decided)
    low, high = np.minimum(labels.left, labels.right), np.maximum(labels.left, labels.right)
    preferred = np.where(labels.outcome > 0.5, labels.left, labels.right)
    return ceiling_of(labels.user, low * len(dataset.texts) + high, preferred)


def first_labels(user: np.ndarray, context: int) -> np.ndarray:
    """Mask (N,) of the first ``context`` labels of each user, in the order given."""
    order = np.argsort(user, kind="stable")
    starts = np.searchsorted(user[order], user[order], side="left")
    rank = np.empty(len(user), np.int64)
    rank[order] = np.arange(len(user)) - starts
    return rank < context


def rows_of(some: Sequence, table: Sequence) -> np.ndarray:
    """Row in ``table`` of each of ``some``, such as the texts of a validation split in the texts of its dataset."""
    row = {one: number for number, one in enumerate(table)}
    return np.array([row[one] for one in some], np.int64)


def groups_of(rows: Iterable[ImportRow]) -> dict[str, str]:
    """The group of each annotator whose rows name exactly one; annotators with none or several are missing."""
    named: dict[str, set[str]] = {}
    for row in rows:
        if row.annotator is not None and row.true_group is not None:
            named.setdefault(row.annotator, set()).add(row.true_group)
    return {name: groups.pop() for name, groups in named.items() if len(groups) == 1}


def tags_of(rows: Sequence[ImportRow]) -> Tags | None:
    """The tags of labels in the order of their rows; None where there is none."""
    return Tags.of((number, row.tags) for number, row in enumerate(rows)) if any(row.tags for row in rows) else None


def _is_label(row: ImportRow) -> bool:
    return row.choice is not None and row.annotator is not None


def _numbered(rows: Sequence[ImportRow], users: dict, texts: dict, prompts: dict) -> Comparisons:
    """Labels of rows; users, texts and prompts that the tables lack are appended to them."""
    rows = [row.in_shown_order() for row in rows]

    def text(prompt: str, response: str) -> int:
        prompts.setdefault(prompt, len(prompts))
        return texts.setdefault((prompt, response), len(texts))

    return Comparisons.build(
        [users.setdefault(row.annotator, len(users)) for row in rows],
        [text(row.prompt, row.response_a) for row in rows],
        [text(row.prompt, row.response_b) for row in rows],
        [OUTCOMES[row.choice] for row in rows],
        [row.choice is Choice.BOTH_BAD for row in rows],
        [row.strength for row in rows],
        [row.position_known for row in rows],
    )
