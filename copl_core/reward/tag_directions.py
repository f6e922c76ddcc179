"""What the tags of reasons say about texts: a direction in the features x of texts for each tag.

    d_k ∝ (S + s I)⁻¹ (m_k − m)

m_k is the mean of x_chosen − x_rejected over the labels with tag k, m and S are mean and covariance over all tags of
labels: a linear discriminant between the labels with this tag and those with others, with a shrunk covariance, since
an embedding has more features than a tag has labels.  A label with tag k then counts as one more label of its user,
whose two texts differ along d_k alone (``reward.linear``): an auxiliary target, as reasons are in arXiv 2407.14477.

Directions are means over labels, and tags are hashes here: nothing quotes anybody.

Shapes: N labels, M tags of labels, K tags with a direction, p features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from copl_core.records import Comparisons
from copl_core.tags import Tags

FEWEST = 3  # decided labels with a tag, for a direction of its own
SHRUNK = 3.0  # s, relative to the mean variance of a feature


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
        sign = np.where(labels.outcome[tags.label] > 0.5, 1.0, -1.0)[:, None]
        chosen = difference[tags.label] * sign  # chosen less rejected, (M, p)
        spread = np.atleast_2d(np.cov(chosen.T))
        spread += SHRUNK * np.trace(spread) / len(spread) * np.eye(len(spread))
        apart = np.stack([chosen[tags.key == key].mean(0) for key in keys]) - chosen.mean(0)
        length = np.linalg.norm(apart, axis=1)
        size = np.linalg.norm(chosen, axis=1).mean() / 2
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

    def steps_of(self, key: np.ndarray) -> np.ndarray:
        """Differences (M, p) in features that tags with a direction stand for."""
        return self.steps[np.searchsorted(self.keys, key)].astype(np.float64)


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
    """The tags (K,) that ``FEWEST`` decided labels have."""
    keys, count = np.unique(_decided(tags, labels).key, return_counts=True)
    return keys[count >= FEWEST]


def _decided(tags: Tags, labels: Comparisons) -> Tags:
    kept = labels.decided[tags.label]
    return Tags(tags.label[kept], tags.key[kept])
