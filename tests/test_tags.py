"""Tags as columns: they stay with their labels, and a number stands for the words."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as some

from copl_core.tags import Tags, tag_key


@given(some.lists(some.lists(some.sampled_from("abc"), max_size=3), max_size=8), some.data())
def test_some_labels_have_the_tags_that_they_had(words, data):
    tags = Tags.of(enumerate(words))
    rows = data.draw(some.permutations(range(len(words))))
    rows = np.array(rows[: data.draw(some.integers(0, len(words)))], np.int64)
    taken = tags.take(rows)
    kept = [{tag_key(word) for word in words[row]} for row in rows]
    assert [set(taken.between(i, i + 1).key.tolist()) for i in range(len(rows))] == kept
    assert len(taken) == sum(map(len, kept)) and (np.diff(taken.label) >= 0).all()
    mask = np.isin(np.arange(len(words)), rows)
    np.testing.assert_array_equal(tags.take(mask).key, tags.take(np.sort(rows)).key)
    np.testing.assert_array_equal(taken.key, tags.key[tags.found(rows)[0]])
    assert (
        np.bincount(taken.label, taken.share).round(9).tolist()
        == [len(k) > 0 for k in kept][: taken.label.max(initial=-1) + 1]
    )


def test_case_and_spaces_do_not_make_another_tag():
    assert tag_key(" Better  Length") == tag_key("better length") != tag_key("betterlength")
