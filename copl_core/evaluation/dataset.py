"""Two sets of labelled rows, one to learn from and one to be asked, over one numbering of users and texts.  Numpy only.

Rows that training knows come first in every table, so a user or text past its end is new.  Users of the test rows that
training lacks give their first K labels, in file order, as context; context is never scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from copl_core.records import Choice, Comparisons, CoplError, ImportRow, TrainingData

OUTCOMES = {Choice.LEFT: 1.0, Choice.RIGHT: 0.0, Choice.TIE: 0.5, Choice.BOTH_BAD: 0.5}
TEST = "test"  # the split of rows that are asked
NEW_PROMPTS_SHARE = 0.2  # of the prompts of one file that are kept from training


@dataclass(frozen=True)
class EvalDataset:
    """Labels to learn from and labels to be asked, by row of the tables."""

    train: TrainingData
    prompts: tuple[str, ...]
    texts: tuple[tuple[str, str], ...]  # (R_all,) prompt and response
    asked: Comparisons  # labels that are scored
    context: Comparisons  # labels given of new users
    users: tuple[str, ...]  # (U_all,)
    groups: tuple[str | None, ...] = ()  # (U_all,) the one group of all of a user's rows, None where there is none
    asked_groups: tuple[str | None, ...] = ()  # group of each asked row
    n_strangers: int = 0  # the last so many asked labels are a control's: they are scored, and no fit looks at them

    @property
    def n_users(self) -> int:
        return len(self.users)

    @property
    def test(self) -> Comparisons:
        return self.asked

    @property
    def new_user(self) -> np.ndarray:
        """Mask of asked labels whose user training lacks."""
        return self.asked.user >= self.train.n_users

    @property
    def new_text(self) -> np.ndarray:
        """Mask of asked labels of which training lacks a response."""
        return np.maximum(self.asked.left, self.asked.right) >= self.train.n_responses


EmbedTexts = Callable[[], np.ndarray]  # → φ (R_all, P) of the texts of a dataset, computed at the first call
Method = Callable[[EvalDataset, EmbedTexts, int], np.ndarray]  # dataset, embeddings, seed → log-odds (N,) of left


def build_world(train_rows: Iterable[ImportRow], test_rows: Iterable[ImportRow], context: int = 0) -> EvalDataset:
    """Number users and texts of both sets of rows.

    Raises:
        CoplError: if either holds no label, or nothing is left to ask.
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
    trained = _number(train_rows, users, texts, prompts)
    if not trained.decided.any():
        raise CoplError(
            f"All {len(trained)} training labels are ties, and there is no taste to learn from: "
            "give labels that prefer one response."
        )
    n_users, n_texts, n_prompts = len(users), len(texts), len(prompts)
    tested = _number(test_rows, users, texts, prompts)
    known_texts, known_prompts = tuple(texts)[:n_texts], tuple(prompts)[:n_prompts]
    train = TrainingData(
        user_ids=np.arange(n_users),
        response_ids=np.arange(n_texts),
        response_prompt=np.array([prompts[prompt] for prompt, _ in known_texts], np.int64),
        prompts=known_prompts,
        responses=tuple(text for _, text in known_texts),
        labels=trained,
    )
    given = first_labels(tested.user, context) & (tested.user >= n_users)
    asked = tested.take(np.flatnonzero(~given))
    if not asked.decided.any():
        raise CoplError(
            "Nothing is left to ask: every test label is a tie or was given as context. "
            "Use a smaller --context or a larger test file."
        )
    return EvalDataset(
        train,
        tuple(prompts),
        tuple(texts),
        asked,
        tested.take(np.flatnonzero(given)),
        tuple(users),
        tuple(map(groups_of(train_rows + test_rows).get, users)),
        tuple(row.true_group for row, out in zip(test_rows, given, strict=True) if not out),
    )


def only_new_prompts(
    train_rows: Sequence[ImportRow], test_rows: Sequence[ImportRow], seed: int, same: bool
) -> tuple[list[ImportRow], list[ImportRow]]:
    """Training rows, and test rows about prompts that no training row is about.

    ``same`` says that both come from one file: a fifth of its prompts, drawn by the seed, is then kept from training.

    Raises:
        CoplError: one file has one prompt, or every test row is about a prompt of training.
    """
    if not test_rows:
        raise CoplError("There is no label to be asked: give rows with a choice and an annotator.")
    if same:
        kept = _drawn({row.prompt for row in test_rows}, seed)
        train_rows = [row for row in train_rows if row.prompt not in kept]
    known = {row.prompt for row in train_rows}
    asked = [row for row in test_rows if row.prompt not in known]
    if not asked:
        raise CoplError(
            f"All {len(test_rows)} test labels are about prompts that training knows, and --new-prompts "
            "asks for others: give a TEST with new prompts, or one file with several prompts for both."
        )
    return list(train_rows), asked


def _drawn(prompts: set[str], seed: int) -> set[str]:
    ordered = sorted(prompts)
    if len(ordered) < 2:
        raise CoplError(
            f"The file has {len(ordered)} prompt, and --new-prompts needs two or more: leave --new-prompts out."
        )
    share = max(1, round(NEW_PROMPTS_SHARE * len(ordered)))
    return {ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))[:share]}


def with_strangers(world: EvalDataset, seed: int) -> EvalDataset:
    """The same world asked twice: as it was, and then with each label put to another of the asked users by chance."""
    people = np.unique(world.asked.user)
    if len(people) < 2:
        raise CoplError("The user-swap control needs two asked users, and the test file has one: leave --controls out.")
    shift = np.random.default_rng(seed).integers(1, len(people), size=len(world.asked))
    stranger = people[(np.searchsorted(people, world.asked.user) + shift) % len(people)]
    twice = [np.concatenate([getattr(world.asked, name)] * 2) for name in Comparisons.__slots__]
    twice[Comparisons.__slots__.index("user")] = np.concatenate([world.asked.user, stranger])
    return replace(world, asked=Comparisons(*twice), asked_groups=world.asked_groups * 2, n_strangers=len(world.asked))


def without_strangers(world: EvalDataset) -> EvalDataset:
    """The world as a fit may look at it, with or without a control: only labels that were really asked."""
    real = np.arange(len(world.asked) - world.n_strangers)
    return replace(world, asked=world.asked.take(real), asked_groups=world.asked_groups[: len(real)], n_strangers=0)


def flipped(world: EvalDataset) -> EvalDataset:
    """The same world learned from the opposite of every training and context label."""

    def opposite(labels: Comparisons) -> Comparisons:
        return replace(labels, outcome=1 - labels.outcome)

    return replace(world, train=world.train.with_labels(opposite(world.train.labels)), context=opposite(world.context))


def first_labels(user: np.ndarray, context: int) -> np.ndarray:
    """Mask (N,) of the first ``context`` labels of each user, in the order given."""
    order = np.argsort(user, kind="stable")
    starts = np.searchsorted(user[order], user[order], side="left")
    rank = np.empty(len(user), np.int64)
    rank[order] = np.arange(len(user)) - starts
    return rank < context


def _is_label(row: ImportRow) -> bool:
    return row.choice is not None and row.annotator is not None


def _number(rows: Sequence[ImportRow], users: dict, texts: dict, prompts: dict) -> Comparisons:
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
    )


def places_of(some: Sequence, every: Sequence) -> np.ndarray:
    """Place in ``every`` of each of ``some``: rows in a real world of the texts or users of a small one inside it."""
    place = {one: row for row, one in enumerate(every)}
    return np.array([place[one] for one in some], np.int64)


def groups_of(rows: Iterable[ImportRow]) -> dict[str, str]:
    """The one group that a person's rows name, by annotator; whose rows name none or several is not in it."""
    told: dict[str, set[str]] = {}
    for row in rows:
        if row.true_group is not None:
            told.setdefault(row.annotator, set()).add(row.true_group)
    return {name: groups.pop() for name, groups in told.items() if len(groups) == 1}
