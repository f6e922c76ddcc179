"""The fingerprint of the data: one hash for the same data in any order, another for any other data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from copl_core.snapshots.fingerprint import data_fingerprint
from copl_core.tags import Tags
from tests.preference.camps import camps


@pytest.fixture(scope="module")
def data():
    return camps()


def tagged(data):
    return replace(data, tags=Tags.of([(1, ("kinder",)), (4, ("clearer", "kinder"))]))


def test_the_order_of_labels_does_not_matter(data):
    for one in (data, tagged(data)):
        assert data_fingerprint(one.take(np.arange(len(data.labels))[::-1])) == data_fingerprint(one)
    facts = data_fingerprint(data)
    assert facts["labels"] == len(data.labels) and facts["people"] <= facts["users"] == data.n_users


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.with_labels(data.labels.take(np.arange(len(data.labels) - 1))),
        lambda data: data.with_labels(data.labels.take(np.arange(0))),
        lambda data: data.with_labels(replace(data.labels, outcome=1 - data.labels.outcome)),
        lambda data: data.with_labels(replace(data.labels, left=data.labels.right, right=data.labels.left)),
        lambda data: data.with_labels(replace(data.labels, both_bad=~data.labels.both_bad)),
        lambda data: replace(data, responses=("another text", *data.responses[1:])),
        lambda data: replace(data, user_ids=data.user_ids + 1),
        lambda data: tagged(data),
    ],
    ids=["fewer", "none", "other answers", "other sides", "both bad", "other text", "other users", "tags"],
)
def test_any_change_of_what_a_fit_reads_changes_the_hash(data, change):
    assert data_fingerprint(change(data))["sha256"] != data_fingerprint(data)["sha256"]
