"""What the tags of reasons say about texts: a direction in the features x of texts for each tag.

    d_k ∝ (S + s I)⁻¹ (m_k − m)

m_k is the mean of x_chosen − x_rejected over the labels with tag k, m and S are mean and covariance over all labels
with tags: a linear discriminant between the labels with this tag and those with others, with a shrunk covariance,
since an embedding has more features than a tag has labels.  Each of these is a mean over a person's labels first and
over people then, so a person of many labels does not turn a direction.  A label with tag k then counts as one more
label of its user, whose two texts differ along d_k alone (``reward.linear``): an auxiliary target, as reasons are in
arXiv 2407.14477.

Directions are means over several people, and tags are hashes here: nothing quotes anybody.

Shapes: N labels, M tags of labels, K tags with a direction, p features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from copl_core.records import Comparisons
from copl_core.tags import Tags

FEWEST_PEOPLE = 3  # who give a tag, for a direction of its own: with fewer it is the taste of one of them
MOST = 200  # directions; the page offers about ten tags, and fits hold tables of labels × directions
SHRUNK = 3.0  # s, relative to the mean variance of a feature
BLOCK = 4096  # labels of which a weighted copy is made at once


@dataclass(frozen=True)
class TagDirections:
    """The difference in features that a tag stands for; half as long as an average difference of two texts."""

    keys: np.ndarray  # (K,) int64, ascending
    steps: np.ndarray  # (K, p) float32

    @classmethod
    def of(cls, difference: np.ndarray, labels: Comparisons, tags: Tags) -> TagDirections | None:
        """From the differences x_left − x_right (N, p) of labels with tags; None where no tag has a direction."""
        tags = _decided(tags, labels)
        keys = frequent(tags, labels)
        if not len(keys):
            return None
        sign = np.where(labels.outcome > 0.5, 1.0, -1.0)  # to chosen less rejected
        votes, people = _votes(labels.user, tags, keys)
        weight = people / people.sum() @ votes  # of each label
        mean = (sign * weight) @ difference
        spread = _second_moment(difference, weight) - np.outer(mean, mean)
        spread += SHRUNK * np.trace(spread) / len(spread) * np.eye(len(spread))
        apart = (votes[: len(keys)] * sign) @ difference - mean
        length = np.linalg.norm(apart, axis=1)
        size = weight @ np.linalg.norm(difference, axis=1) / 2
        differs = length > 1e-6 * size  # not so a tag that every label has
        if not differs.any():
            return None
        found = np.linalg.solve(spread, apart[differs].T).T
        steps = size * found / np.linalg.norm(found, axis=1, keepdims=True)
        return cls(keys[differs], steps.astype(np.float32))

    def among(self, tags: Tags, labels: Comparisons) -> Tags:
        """The tags with a direction, of decided labels: a tie has no response that was chosen for a reason."""
        tags = _decided(tags, labels)
        kept = np.isin(tags.key, self.keys)
        return Tags(tags.label[kept], tags.key[kept])

    def columns(self, key: np.ndarray) -> np.ndarray:
        """Rows (M,) of ``steps`` for tags with a direction."""
        return np.searchsorted(self.keys, key)

    def sums(self, row: np.ndarray, key: np.ndarray, number: np.ndarray, rows: int) -> np.ndarray:
        """Σ number · d (rows, p) over the tags (M,) with a direction of each row, without a table of M × p."""
        table = csr_array((number, (row, self.columns(key))), shape=(rows, len(self.keys)))
        return table @ self.steps.astype(np.float64)


@dataclass(frozen=True)
class FittedTags:
    """The tags that a fit has read."""

    directions: TagDirections
    tags: Tags  # those with a direction, of all labels of the fit
    own: np.ndarray  # (M,) a of each, see ``reward.linear``

    def belong_to(self, n_labels: int, n_features: int) -> bool:
        """Whether the tables are those of a fit with so many labels and features."""
        keys, steps, label = self.directions.keys, self.directions.steps, self.tags.label
        if steps.shape != (len(keys), n_features) or not len(label) == len(self.tags.key) == len(self.own):
            return False
        inside = 0 <= label.min(initial=0) and label.max(initial=-1) < n_labels
        return bool(inside and (np.diff(label) >= 0).all() and np.isin(self.tags.key, keys).all())

    def tables(self) -> dict[str, np.ndarray]:
        """As they are stored."""
        tables = {
            "keys": self.directions.keys,
            "steps": self.directions.steps,
            "label": self.tags.label,
            "key": self.tags.key,
            "own": self.own.astype(np.float32),
        }
        return {name: np.ascontiguousarray(table) for name, table in tables.items()}  # safetensors takes no views

    @classmethod
    def of_tables(cls, tables: Mapping[str, np.ndarray]) -> FittedTags:
        """What ``tables`` gave."""
        directions = TagDirections(tables["keys"], tables["steps"])
        return cls(directions, Tags(tables["label"], tables["key"]), tables["own"])


def frequent(tags: Tags, labels: Comparisons) -> np.ndarray:
    """The tags (K,), ascending, that ``FEWEST_PEOPLE`` or more give with decided labels; of more than ``MOST``, those
    of the most people."""
    tags = _decided(tags, labels)
    keys, column = np.unique(tags.key, return_inverse=True)
    people = np.bincount(_pairs(column, labels.user[tags.label])[0], minlength=len(keys))
    order = np.argsort(-people, kind="stable")[:MOST]
    return keys[np.sort(order[people[order] >= FEWEST_PEOPLE])]


def _votes(user: np.ndarray, tags: Tags, keys: np.ndarray) -> tuple[csr_array, np.ndarray]:
    """(K + 1, N) weights of labels in the mean of each tag, in which each user has one vote that their labels share,
    and the (K + 1,) users of each; the last is of the labels that have other tags alone."""
    kept = np.isin(tags.key, keys)
    others = np.setdiff1d(tags.label, tags.label[kept])
    label = np.concatenate([tags.label[kept], others])
    column = np.concatenate([np.searchsorted(keys, tags.key[kept]), np.full(len(others), len(keys))])
    of_pairs, pair, count = _pairs(column, user[label])
    people = np.bincount(of_pairs, minlength=len(keys) + 1)
    weight = 1 / (count[pair] * people[column])
    return csr_array((weight, (column, label)), shape=(len(people), len(user))), people


def _pairs(column: np.ndarray, user: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Different pairs of a tag and a user: (tag of each, the pair of each row here, rows of each pair)."""
    n_users = 1 + user.max(initial=0)
    found, pair, count = np.unique(column * n_users + user, return_inverse=True, return_counts=True)
    return found // n_users, pair, count


def _second_moment(difference: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Σ weight · difference differenceᵀ, (p, p); no sign matters to it."""
    out = np.zeros((difference.shape[1],) * 2)
    for start in range(0, len(difference), BLOCK):
        rows = slice(start, start + BLOCK)
        out += (difference[rows] * weight[rows, None]).T @ difference[rows]
    return out


def _decided(tags: Tags, labels: Comparisons) -> Tags:
    kept = labels.decided[tags.label]
    return Tags(tags.label[kept], tags.key[kept])
