"""What a request asks of the text embedder."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.__main__ import open_store, seed_demo
from copl_core.config import Settings
from copl_core.study import rewards
from copl_core.study.scoring import Scorer
from copl_core.study.session import Session
from tests.study.test_model_export import linked


@pytest.fixture
def demo(tmp_path, minilm) -> Session:
    settings = linked(tmp_path / "home", minilm=minilm)
    return seed_demo(open_store(settings), settings)


class Watched:
    """Random embeddings of the width of the demo's, one for each text, and the texts of each call."""

    def __init__(self, width: int) -> None:
        self.width, self.calls = width, []

    def __call__(self, texts, *, features_version):
        self.calls.append((list(texts), features_version))
        return np.stack([np.random.default_rng(len(r)).normal(size=self.width) for _, r in texts]).astype(np.float32)


def test_texts_are_embedded_again_only_for_other_texts_or_another_version_of_the_features():
    watched = Watched(4)
    scorer = Scorer(Settings(), embed=watched)
    texts = [("why", "a"), ("why", "bb")]
    first = scorer.embed(texts, 2)
    np.testing.assert_array_equal(scorer.embed(list(texts), 2), first)
    assert len(watched.calls) == 1
    np.testing.assert_array_equal(scorer.embed(texts[::-1], 2), first[::-1])
    scorer.embed(texts[::-1], 1)
    assert [version for _, version in watched.calls] == [2, 2, 1]


@pytest.mark.weights
def test_graph_and_text_weights_read_one_embedding_of_a_request(demo):
    snapshot = demo.snapshot()
    assert snapshot.mix.graph_new and snapshot.mix.linear_new
    watched = Watched(len(snapshot.linear.features.mean))
    demo._scorer[:] = [Scorer(demo.settings, embed=watched)]
    prompt, answers = "Why is the sky blue?", ["Light scatters. Blue most.", "Nobody knows."]
    rewards.reward(demo, prompt, answers)
    assert [texts for texts, _ in watched.calls] == [[(prompt, answer) for answer in answers]]
    rewards.attribution(demo, prompt, answers, groups=True)
    assert len(watched.calls) == 2 and watched.calls[1][0][:2] == watched.calls[0][0]
