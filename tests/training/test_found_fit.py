"""The fit of found features: a bounded sample of labels, and groups that follow the map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from copl_core.features import FEATURE_NAMES
from copl_core.insight.layout import Layout
from copl_core.records import Comparisons, TrainingData
from copl_core.training import found_fit
from copl_core.training.found_fit import fit_found, sampled, with_groups

N_USERS, N_PROMPTS, WIDTH = 40, 60, 8


@pytest.fixture(scope="module")
def two_subjects() -> tuple[TrainingData, np.ndarray]:
    """Even users prefer a direction of the encoder, odd ones its opposite; and φ of the texts."""
    rng = np.random.default_rng(0)
    n = 2 * N_PROMPTS
    encoder = 0.3 * rng.normal(size=(n, WIDTH))
    encoder[:, 0] += np.tile([1.0, -1.0], N_PROMPTS)
    phi = np.hstack([encoder, rng.normal(size=(n, len(FEATURE_NAMES)))]).astype(np.float32)
    user = np.repeat(np.arange(N_USERS), 25)
    prompt = np.concatenate([rng.permutation(N_PROMPTS)[:25] for _ in range(N_USERS)])
    outcome = ((user % 2 == 0) ^ (rng.random(len(user)) < 0.1)).astype(float)
    outcome[rng.random(len(user)) < 0.05] = 0.5
    labels = Comparisons.build(user, 2 * prompt, 2 * prompt + 1, outcome)
    texts = tuple(f"text {row}" for row in range(n))
    prompts = tuple(f"question {number}" for number in range(N_PROMPTS))
    data = TrainingData(
        np.arange(N_USERS) + 500, np.arange(n) + 70, np.repeat(np.arange(N_PROMPTS), 2), prompts, texts, labels
    )
    return data, phi


def layout_of(data: TrainingData, group: np.ndarray) -> Layout:
    xy = np.zeros((data.n_users, 2), np.float32)
    return Layout(data.user_ids, xy, group, float("nan"), {})


def test_the_planted_feature_is_found_and_each_group_has_its_side(two_subjects):
    data, phi = two_subjects
    found = fit_found(data, phi)
    assert found.gain.certain and found.n_labels == data.labels.decided.sum() and found.groups == {}
    assert (found.dictionary.directions[:, 0] ** 2).max() > 0.8
    groups = with_groups(found, layout_of(data, np.arange(N_USERS) % 2), data, phi).groups
    (first, d), (same, opposite) = groups[0][0], groups[1][0]
    assert first == same and d * opposite < 0 and abs(d) > 1
    more, less = found.examples[first, 0] - 70
    assert (phi[more, 0] - phi[less, 0]) * d > 0, "the even users' side"


def test_groups_follow_the_map_and_features_stay(two_subjects):
    data, phi = two_subjects
    found = fit_found(data, phi)
    one = with_groups(found, layout_of(data, np.arange(N_USERS) % 2), data, phi)
    other = with_groups(one, layout_of(data, 1 - np.arange(N_USERS) % 2), data, phi)
    assert other.groups[0][0][0] == one.groups[1][0][0] and other.gain is found.gain
    assert other.groups[0][0][1] == pytest.approx(one.groups[1][0][1], abs=1e-6)
    nobody = with_groups(one, layout_of(data, np.full(N_USERS, -1)), data, phi)
    assert nobody.groups == {}


def test_another_text_embedding_or_too_few_labels_have_no_found_features(two_subjects):
    data, phi = two_subjects
    found = fit_found(data, phi)
    layout = layout_of(data, np.arange(N_USERS) % 2)
    assert with_groups(found, layout, data, phi[:, 1:]) is None and with_groups(None, layout, data, phi) is None
    assert fit_found(data, phi[:, WIDTH:]) is None
    few = data.with_labels(data.labels.take(np.arange(60)))
    none = data.with_labels(data.labels.take(np.arange(0)))
    assert fit_found(few, phi) is None and fit_found(none, phi) is None


def test_a_large_study_is_read_by_a_sample_that_is_always_the_same(two_subjects, monkeypatch):
    data, phi = two_subjects
    monkeypatch.setattr(found_fit, "USERS", 20)
    monkeypatch.setattr(found_fit, "PER_USER", 15)
    monkeypatch.setattr(found_fit, "LABELS", 200)
    some, of_some = sampled(data, phi)
    n = np.bincount(some.labels.user, minlength=N_USERS)
    assert 150 < len(some.labels) <= 200 and n.max() <= 15 and 10 <= (n > 0).sum() <= 20
    assert some.labels.decided.all() and len(some.responses) == len(some.response_ids) == len(of_some)
    for row, id in enumerate(some.response_ids.tolist()):
        assert some.responses[row] == data.responses[id - 70] and (of_some[row] == phi[id - 70]).all()
    again, _ = sampled(data, phi)
    assert (again.labels.user == some.labels.user).all() and (again.labels.left == some.labels.left).all()


def test_ties_teach_nothing(two_subjects):
    data, phi = two_subjects
    without = data.with_labels(data.labels.take(data.labels.decided))
    assert fit_found(data, phi).gain == fit_found(without, phi).gain


def test_what_progress_raises_ends_the_fit(two_subjects):
    def cancel(done, total):
        if done:
            raise InterruptedError(total)

    with pytest.raises(InterruptedError, match="3"):
        fit_found(*two_subjects, cancel)


def test_what_is_stored_reads_back(two_subjects, tmp_path):
    data, phi = two_subjects
    layout = layout_of(data, np.arange(N_USERS) % 2)
    found = with_groups(fit_found(data, phi), layout, data, phi)
    replace(layout, found=found).save(tmp_path)
    read = Layout.load(tmp_path).found
    assert (read.gain, read.groups, read.n_texts, read.n_labels) == (found.gain, found.groups, 120, found.n_labels)
    assert (read.examples == found.examples).all()
    assert read.dictionary.directions == pytest.approx(found.dictionary.directions, abs=1e-6)
    layout.save(tmp_path)
    assert Layout.load(tmp_path).found is None
