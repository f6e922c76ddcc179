"""Validation labels: a part of the training labels that is split off the way the test labels are.

Options of a method are chosen on them.  Where many test labels are about new texts, whole
prompts are held out; where many are by new users, whole users, except for the context labels they would give; else
labels about responses that are held out from their user.  No response of a validation label occurs in a label that is
learned or given as context by the same user, whatever the test labels share with the training labels.  Of the test
labels only this is read: which users and texts are new.  The labels of a control are not read at all.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from copl_core.evaluation.dataset import EvalDataset, first_labels, rows_of, without_swapped_users
from copl_core.records import Comparisons, TrainingData
from copl_core.training.split import ValidationSplit, hold_out, shares_response, uniform

PROMPTS_SHARE = 0.15  # of the prompts, where test labels are about new texts
TEXTS_SHARE = 0.08  # of the responses, where there are too few prompts for that
USERS_SHARE = 0.15  # of the users, where test labels are by new users
FEWEST_PROMPTS = 5
NOTABLE = 0.1  # share of test labels with something new from which validation labels are made like them
RANDOM_SHARE = 0.15  # of the decided labels, in a random split
FEWEST_LABELS = 10  # with fewer validation labels no option is chosen


def validation_split(dataset: EvalDataset, seed: int) -> ValidationSplit:
    """Validation labels like the test labels where those are about something new, else a random part."""
    return matched_split(dataset, seed) or random_split(dataset, seed)


def matched_split(dataset: EvalDataset, seed: int) -> ValidationSplit | None:
    """The split of ``validation_dataset`` where many test labels are about new texts or by new users and the training
    labels can be split the same way, else None.

    Each kind of label (nothing new, new text, new user, both) has the weight that it has among the test labels.
    """
    dataset = without_swapped_users(dataset)
    if max(dataset.new_text.mean(), dataset.new_user.mean()) <= NOTABLE:
        return None
    inner = validation_dataset(dataset, seed)
    kinds, test_kinds = (_label_kind(one.new_text, one.new_user) for one in (inner, dataset))
    weight = _matched_weights(kinds, test_kinds)
    if (weight > 0).sum() < FEWEST_LABELS:
        return None
    rows = rows_of(inner.users, dataset.users), rows_of(inner.texts, dataset.texts)
    return ValidationSplit(inner.train, inner.test, inner.context, weight, *rows)


def random_split(dataset: EvalDataset, seed: int) -> ValidationSplit:
    """About ``RANDOM_SHARE`` of the decided training labels as validation labels, held out by ``hold_out``."""
    labels = dataset.train.labels.take(dataset.train.labels.decided)
    learned, out = random_masks(labels, seed)
    weight = np.full(out.sum(), 1 / max(out.sum(), 1))
    rows = np.arange(len(dataset.users)), np.arange(len(dataset.texts))
    train = dataset.train.with_labels(labels.take(learned))
    return ValidationSplit(train, labels.take(out), labels.take(np.empty(0, np.int64)), weight, *rows)


def random_masks(labels: Comparisons, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks (N,) of the labels that a random split learns from, and of those that it holds out."""
    return hold_out(labels.user, labels.left, labels.right, RANDOM_SHARE, seed + 1)


def validation_dataset(dataset: EvalDataset, seed: int) -> EvalDataset:
    """A dataset inside the training labels, with test labels like the real ones.

    Its ``train.user_ids`` and ``train.response_ids`` are rows of the real dataset.
    """
    dataset = without_swapped_users(dataset)
    train, labels = dataset.train, dataset.train.labels
    ids = train.user_ids[labels.user], train.response_ids[labels.left], train.response_ids[labels.right]
    learned, test = hold_out(*ids)
    if dataset.new_text.mean() > NOTABLE:
        test |= _mask_of_new_texts(train, seed)
    context = np.zeros(len(labels), bool)
    if dataset.new_user.mean() > NOTABLE:
        new_user = _drawn(train.user_ids, USERS_SHARE, seed, salt=2)[labels.user]
        context = new_user & first_labels(labels.user, _context_per_user(dataset))
        test = (test | new_user) & ~context
    learned &= ~test & ~context
    clean = ~shares_response(*ids, learned | context)
    return _renumbered(dataset, learned, test & labels.decided & clean, context)


def _mask_of_new_texts(train: TrainingData, seed: int) -> np.ndarray:
    """Mask (N,) of labels about prompts, or responses, that are held out as new."""
    left, right = train.labels.left, train.labels.right
    if len(train.prompts) >= FEWEST_PROMPTS:
        prompts = np.random.default_rng(seed).permutation(len(train.prompts))
        prompts = prompts[: max(1, round(PROMPTS_SHARE * len(prompts)))]
        return np.isin(train.response_prompt[left], prompts)
    new = _drawn(train.response_ids, TEXTS_SHARE, seed, salt=3)
    return new[left] | new[right]


def _context_per_user(dataset: EvalDataset) -> int:
    """Context labels of a new user, rounded mean."""
    context = dataset.context
    return round(len(context) / max(1, len(np.unique(context.user)))) if len(context) else 0


def _drawn(ids: np.ndarray, share: float, seed: int, salt: int) -> np.ndarray:
    """Mask of about a ``share`` of the ids."""
    return uniform(np.full(len(ids), seed), np.full(len(ids), salt), ids) < share


def _matched_weights(kinds: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Weight (N,) of labels of these kinds (N,), such that each kind has its share among ``wanted`` (M,)."""
    n_wanted, n_here = (np.bincount(some, minlength=4) for some in (wanted, kinds))
    weight = (n_wanted / np.maximum(n_here, 1))[kinds]
    return weight / max(weight.sum(), 1e-30)


def _renumbered(dataset: EvalDataset, learned: np.ndarray, test: np.ndarray, context: np.ndarray) -> EvalDataset:
    """A dataset of the masked training labels; users and texts of learned labels have the first rows."""
    train = dataset.train
    users, user_row, n_users = _known_first(train.labels.user[learned], train.n_users)
    responses = np.concatenate([train.labels.left[learned], train.labels.right[learned]])
    texts, text_row, n_texts = _known_first(responses, train.n_responses)

    def labels(mask: np.ndarray) -> Comparisons:
        some = train.labels.take(mask)
        return replace(some, user=user_row[some.user], left=text_row[some.left], right=text_row[some.right])

    known = texts[:n_texts]
    inner = TrainingData(
        train.user_ids[users[:n_users]],
        train.response_ids[known],
        train.response_prompt[known],
        train.prompts,
        tuple(train.responses[i] for i in known),
        labels(learned),
    )
    return EvalDataset(
        inner,
        labels(test),
        labels(context),
        dataset.prompts,
        tuple(dataset.texts[i] for i in texts),
        tuple(dataset.users[i] for i in users),
    )


def _known_first(used: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Order (n,) of rows with the used ones first, the new index (n,) of each row, and how many are used."""
    is_used = np.zeros(n, bool)
    is_used[used] = True
    order = np.argsort(~is_used, kind="stable")
    index = np.empty(n, np.int64)
    index[order] = np.arange(n)
    return order, index, int(is_used.sum())


def _label_kind(new_text: np.ndarray, new_user: np.ndarray) -> np.ndarray:
    """(N,) 0 where nothing is new, 1 where a text is new, 2 where the user is new, 3 where both are."""
    return np.asarray(new_text, np.int64) + 2 * np.asarray(new_user, np.int64)
