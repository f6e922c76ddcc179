"""A small world inside the training labels that is asked the way the real one is: what a mix of methods is learned on.

Of the training labels it keeps a tenth of the decided ones, or labels about responses that are kept from their user
altogether, where the real asked labels are of that kind; whole prompts, where many are about texts that training lacks;
and whole people, but for the labels they would give as context, where many are by new people.  Nothing of the real
asked labels is read but whether their users, texts and meetings are new, and nothing at all of a control's.
"""

from __future__ import annotations

import numpy as np

from copl_core.evaluation.dataset import EvalDataset, first_labels, without_strangers
from copl_core.records import Comparisons, TrainingData
from copl_core.training.split import held_out, split_by_edge, uniform

PROMPTS_SHARE = 0.15  # of the prompts, where texts are asked that training lacks
TEXTS_SHARE = 0.08  # of the responses, where there are too few prompts for that
USERS_SHARE = 0.15  # of the people, where new people are asked
FEWEST_PROMPTS = 5
APART_SHARE = 0.2  # of each person's responses, where asked labels are about responses new to the person
WORTH = 0.1  # share of asked labels that must be about something new before the probe gives up labels to imitate it


def probe_world(world: EvalDataset, seed: int) -> EvalDataset:
    """The small world; its user and response ids are rows of the real one."""
    world = without_strangers(world)
    train, labels = world.train, world.train.labels
    asked, learned = _of_known(world)
    if world.new_text.mean() > WORTH:
        asked |= _of_new_texts(train, seed)
    given = np.zeros(len(labels), bool)
    if world.new_user.mean() > WORTH:
        newcomer = _share(train.user_ids, USERS_SHARE, seed, salt=2)[labels.user]
        context = round(len(world.context) / max(1, len(np.unique(world.context.user)))) if len(world.context) else 0
        given = newcomer & first_labels(labels.user, context)
        asked = (asked | newcomer) & ~given
    return _renumbered(world, learned & ~asked & ~given, asked & labels.decided, given)


def _of_known(world: EvalDataset) -> tuple[np.ndarray, np.ndarray]:
    """Masks (N,) of known people's labels about known texts that are asked, and of those that may be learned from.

    Where people are asked about responses that they met in training, a label is drawn by itself.  Where they are not,
    both responses of an asked label are kept from the person: else pairs made from one list of ratings would tell each
    other (a ≻ b and b ≻ c say a ≻ c), and every voice would be believed too far.
    """
    train, labels = world.train, world.train.labels
    if not asked_about_met(world):
        learned, asked = split_by_edge(train, APART_SHARE)
        return asked, learned
    asked = held_out(
        train.user_ids[labels.user], train.response_ids[labels.left], train.response_ids[labels.right], labels.decided
    )
    return asked, ~asked


def asked_about_met(world: EvalDataset) -> bool:
    """Whether many asked labels, of known people about known texts, are about a response the person met in training."""
    world = without_strangers(world)
    labels, n = world.train.labels, len(world.texts)
    met = np.unique(np.concatenate([labels.user * n + labels.left, labels.user * n + labels.right]))
    asked = world.asked.take(~world.new_user & ~world.new_text)
    if not len(asked):
        return True
    return (np.isin(asked.user * n + asked.left, met) | np.isin(asked.user * n + asked.right, met)).mean() >= WORTH


def _of_new_texts(train: TrainingData, seed: int) -> np.ndarray:
    """Mask of labels about prompts, or responses, that the probe keeps from its training."""
    left, right = train.labels.left, train.labels.right
    if len(train.prompts) >= FEWEST_PROMPTS:
        kept = np.random.default_rng(seed).permutation(len(train.prompts))
        kept = kept[: max(1, round(PROMPTS_SHARE * len(kept)))]
        return np.isin(train.response_prompt[left], kept)
    new = _share(train.response_ids, TEXTS_SHARE, seed, salt=3)
    return new[left] | new[right]


def _share(ids: np.ndarray, share: float, seed: int, salt: int) -> np.ndarray:
    return uniform(np.full(len(ids), seed), np.full(len(ids), salt), ids) < share


def _renumbered(world: EvalDataset, learned: np.ndarray, asked: np.ndarray, given: np.ndarray) -> EvalDataset:
    """A world of the masked training labels, rows that it learns from first."""
    train = world.train
    users, user_row, n_users = _known_first(train.labels.user[learned], train.n_users)
    ends = np.concatenate([train.labels.left[learned], train.labels.right[learned]])
    texts, text_row, n_texts = _known_first(ends, train.n_responses)

    def labels(mask: np.ndarray) -> Comparisons:
        some = train.labels.take(mask)
        return Comparisons(
            user_row[some.user], text_row[some.left], text_row[some.right], some.outcome, some.both_bad, some.strength
        )

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
        world.prompts,
        tuple(world.texts[i] for i in texts),
        labels(asked),
        labels(given),
        tuple(world.users[i] for i in users),
    )


def _known_first(used: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Order (n,) of rows with the used ones first, the place of each row in it, and how many are used."""
    seen = np.zeros(n, bool)
    seen[used] = True
    order = np.argsort(~seen, kind="stable")
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    return order, place, int(seen.sum())
