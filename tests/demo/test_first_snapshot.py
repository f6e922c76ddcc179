"""The snapshot that the product ships for its demo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from copl_core.__main__ import open_store
from copl_core.config import Settings
from copl_core.demo import first_snapshot
from copl_core.demo.world import demo_rows
from copl_core.records import Choice, ImportRow
from copl_core.snapshots.snapshot import load_snapshot, verify
from copl_core.training.text_embedder import TextEmbedder, inputs


@pytest.fixture
def home(tmp_path):
    settings = Settings(home=tmp_path)
    return settings, open_store(settings)


def demo(store, rows):
    study = store.create_study("Demo", demo=True)
    store.import_rows(study.id, rows)
    return study.id


def test_it_belongs_to_the_texts_and_labels_of_the_demo(home):
    settings, store = home
    study = demo(store, demo_rows(seed=0))
    assert first_snapshot.install(store, settings, study)
    record = store.champion(study)
    snapshot = load_snapshot(settings.snapshots / str(study), record.version)
    data = store.training_data(study)
    assert record.n_labels == len(data.labels) and record.watermark == data.watermark and record.run_id is None
    assert verify(snapshot) == [] and snapshot.has_reward and np.isfinite(snapshot.layout.xy).all()
    hits = (snapshot.graph.margins(data.labels) > 0) == (data.labels.outcome == 1)
    assert hits[data.labels.decided].mean() > 0.8  # a graph of these people, not of others


def test_its_ids_are_those_of_the_database(home):
    settings, store = home
    other = store.create_study("Another study came first")
    store.import_rows(other.id, [ImportRow(1, "p", "a", "b", Choice.LEFT, "ann", key="k")])
    study = demo(store, demo_rows(seed=0))
    assert first_snapshot.install(store, settings, study)
    snapshot, data = load_snapshot(settings.snapshots / str(study), "v0001"), store.training_data(study)
    for graph in (snapshot.graph, snapshot.reward_graph):
        assert (graph.user_ids == data.user_ids).all() and (graph.response_ids == data.response_ids).all()
    assert data.user_ids.min() > 1  # otherwise this test shows nothing
    assert (snapshot.layout.user_ids == data.user_ids).all()


def test_other_labels_get_their_own_first_snapshot(home):
    settings, store = home
    study = demo(store, demo_rows(seed=1))
    assert not first_snapshot.install(store, settings, study)
    assert store.champion(study) is None and not settings.snapshots.exists()


def test_one_changed_text_is_noticed(home):
    settings, store = home
    rows = list(demo_rows(seed=0))
    changed = rows[0].response_a
    rows = [
        replace(
            row,
            response_a=row.response_a.replace(changed, changed + "!"),
            response_b=row.response_b.replace(changed, changed + "!"),
        )
        for row in rows
    ]
    assert not first_snapshot.install(store, settings, demo(store, rows))


def test_the_shipped_encodings_are_those_of_the_encoder(home, minilm):
    settings, store = home
    settings.weights.symlink_to(minilm.parent)
    study = demo(store, demo_rows(seed=0))
    first_snapshot.install(store, settings, study)
    texts = [text for pair in list(store.training_data(study).texts())[:4] for text in inputs(*pair)]
    kept = TextEmbedder(minilm, cache=settings.cache / "phi")
    kept._load = lambda: pytest.fail("the text is not in the cache")  # noqa: SLF001
    assert np.allclose(kept.vectors(texts), TextEmbedder(minilm).vectors(texts), atol=1e-4)
