"""Unlabelled texts lean on labelled ones that read alike: the formulas of a Gaussian process, and what follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from copl_core.features import FEATURE_NAMES
from copl_core.preference import nearby
from copl_core.preference.nearby import FEW, NOISE, WIDTH, Nearby, prompt_keys
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons
from copl_core.training.graph_fit import fit_graph
from tests.preference.camps import QUICK, camps

STYLE = len(FEATURE_NAMES)


def some_texts(n: int = 30, prompts: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(φ, prompt keys, numbers of labels, residuals)."""
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(n, 8 + STYLE)).astype(np.float32)
    return phi, np.arange(n) % prompts, rng.integers(1, 9, n), rng.normal(size=(n, 4)).astype(np.float32)


def of(phi, prompt, n, residual) -> Nearby:
    return Nearby.of(phi, prompt, np.arange(len(phi)) + 100, n, residual)


def expected(phi, prompt, n, residual, mean, new, new_prompt) -> np.ndarray:
    """The mean of the Gaussian process, written out with one kernel over all prompts."""

    def unit(x):
        x = x[:, :-STYLE] - mean
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def kernel(one, other):
        return np.exp((one @ other.T - 1) / WIDTH)

    same = prompt[:, None] == prompt
    system = kernel(unit(phi), unit(phi)) * same + np.diag(NOISE * (1 + FEW / n))
    near = kernel(unit(new), unit(phi)) * (new_prompt[:, None] == prompt)
    return near @ np.linalg.solve(system, residual)


def test_a_new_text_has_the_mean_of_the_process_given_the_labelled_ones():
    world, (new, new_prompt, *_) = some_texts(), some_texts(7, 4, seed=1)
    found = of(*world)
    assert found(new, new_prompt) == pytest.approx(expected(*world, found.mean, new, new_prompt), abs=2e-3)


def test_the_text_of_a_new_prompt_takes_nothing():
    assert not of(*some_texts())(some_texts(5, seed=1)[0], np.full(5, 9)).any()


def test_the_order_of_the_responses_changes_nothing():
    phi, prompt, n, residual = some_texts()
    order, (new, new_prompt, *_) = np.random.default_rng(2).permutation(len(phi)), some_texts(5, seed=3)
    ids = np.arange(len(phi)) + 100
    turned = Nearby.of(phi[order], prompt[order], ids[order], n[order], residual[order])
    assert turned(new, new_prompt) == pytest.approx(of(phi, prompt, n, residual)(new, new_prompt), abs=1e-4)


def test_of_many_responses_those_with_the_most_labels_are_kept(monkeypatch):
    phi, prompt, n, residual = some_texts()
    n[:5] = 0
    assert len(of(phi, prompt, n, residual).texts) == 25
    monkeypatch.setattr(nearby, "MOST_OF_PROMPT", 4)
    kept = of(phi, prompt, n, residual)
    rows = np.concatenate(
        [np.flatnonzero(prompt == one)[np.argsort(-n[prompt == one], kind="stable")[:4]] for one in range(3)]
    )
    some = np.sort(rows)
    alone = Nearby.of(phi[some], prompt[some], some + 100, n[some], residual[some])
    assert np.array_equal(kept.prompt, prompt[some]) and np.array_equal(kept.sums, alone.sums)
    monkeypatch.setattr(nearby, "MOST", 5)
    assert len(of(phi, prompt, n, residual).texts) == 5


def test_equal_prompts_have_equal_keys_and_others_have_not():
    keys = prompt_keys(["Why?", "How?", "Why?", ""])
    assert keys.dtype == np.int64 and keys[0] == keys[2] and len(set(keys.tolist())) == 3
    assert prompt_keys([]).shape == (0,)


# ---- in a graph


@pytest.fixture(scope="module")
def graph() -> tuple[GraphState, np.ndarray, list[str]]:
    """All answer one prompt, and like odd responses, of which no direction of φ tells: each text has a twin, which is
    near it.  The twins of the last four responses have no label."""
    data, rng = camps(), np.random.default_rng(0)
    n = data.n_responses
    own = rng.normal(size=(n // 2, 40))
    phi = np.zeros((n, 40 + STYLE), np.float32)
    phi[:, :40] = np.repeat(own, 2, axis=0) + 0.1 * rng.normal(size=(n, 40))
    unlabelled = np.arange(n - 8, n, 2)
    liked = np.arange(n) // 2 % 2 == 1
    left, right = np.array([(a, b) for a in range(n) for b in range(n) if liked[a] != liked[b] and a < b]).T
    rows = rng.choice(len(left), 400)
    keep = rows[~np.isin(left[rows], unlabelled) & ~np.isin(right[rows], unlabelled)]
    labels = Comparisons.build(
        rng.integers(0, data.n_users, len(keep)), left[keep], right[keep], liked[left[keep]].astype(float)
    )
    data = replace(data.with_labels(labels), response_prompt=np.zeros(n, int), prompts=("Why?",))
    return fit_graph(data, phi, QUICK, seed=0), phi, ["Why?"] * n


def test_a_text_without_labels_is_liked_as_its_twin_is(graph):
    state, phi, prompts = graph
    n = len(phi)
    unlabelled, twins = np.arange(n - 8, n, 2), np.arange(n - 7, n, 2)
    alone = state.embed_responses(phi)
    near = state.embed_responses(phi, prompts)
    wanted = state.response_vectors[twins]
    assert np.linalg.norm(near[0][unlabelled] - wanted) < 0.7 * np.linalg.norm(alone[0][unlabelled] - wanted)
    assert state.response_vectors[unlabelled] == pytest.approx(near[0][unlabelled], abs=1e-5)
    assert state.response_bias[unlabelled] == pytest.approx(near[1][unlabelled], abs=1e-5)


def test_what_a_graph_leans_on_survives_the_disk_and_a_graph_without_it_leans_on_nothing(graph, tmp_path):
    state, phi, prompts = graph
    state.save(tmp_path)
    back = GraphState.load(tmp_path)
    for one, other in zip(back.embed_responses(phi, prompts), state.embed_responses(phi, prompts), strict=True):
        np.testing.assert_array_equal(one, other)
    earlier = replace(state, weights={name: w for name, w in state.weights.items() if not name.startswith("nearby.")})
    assert earlier.nearby is None
    for one, other in zip(earlier.embed_responses(phi, prompts), earlier.embed_responses(phi), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_graph_of_style_features_alone_and_one_that_reads_no_text_lean_on_nothing():
    data = camps()
    style = np.random.default_rng(0).normal(size=(data.n_responses, STYLE)).astype(np.float32)
    assert fit_graph(data, style, QUICK, seed=0).nearby is None
    wide = np.random.default_rng(0).normal(size=(data.n_responses, STYLE + 5)).astype(np.float32)
    assert fit_graph(data, wide, QUICK, seed=0).nearby is not None
    assert fit_graph(data, wide, QUICK.with_settings(ids_only=True), seed=0).nearby is None
