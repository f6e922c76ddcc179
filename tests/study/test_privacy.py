"""Study, Privacy: what an audit attacks, where its figures stay, and what a departure does to them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from copl_core.records import CoplError
from copl_core.snapshots.mix import Mix
from copl_core.study import access, forget, model_card, privacy
from copl_core.study.model_card import Card
from tests.worlds import fit_graph_now, open_study, trained, two_camps

ROW = {"part": "label", "observer": "folder of a snapshot", "attack": "reads it", "auc": 1.0, "low": 0.99, "high": 1.0}
FACTS = {
    "n_labels": 160, "n_people": 16, "revision": 7,
    "rows": [
        {**ROW, "found": 0.5}, {**ROW, "part": "knob", "accuracy": [0.7, 0.6, 0.8], "baseline": 0.75},
        {**ROW, "part": "group"},
    ],
}  # fmt: skip


@pytest.fixture
def session(tmp_path_factory, tmp_path):
    return trained(two_camps, tmp_path_factory, tmp_path / "home")


def test_before_an_audit_there_are_no_figures(session):
    assert privacy.last(session) is None


def test_an_audit_attacks_all_labels_with_the_settings_of_the_champion(session):
    subject = privacy.audited(session)
    assert subject.snapshot.version == session.record.champion
    assert len(subject.data.labels) == 160 and subject.config.stored() == subject.snapshot.graph.config
    made_in = subject.attributes["group that simulated people were made in"]
    assert sorted(set(made_in.values())) == ["long", "short"] and len(made_in) == 16


def test_figures_stay_with_the_snapshot_that_was_audited_and_the_large_tables_do_not(session):
    kept = privacy.keep(session, session.record.champion, FACTS)
    assert kept == privacy.last(session) and kept.is_champion and kept.revision == 7
    assert [one.part for one in kept.figures] == ["label", "knob"]
    (knob,) = kept.of("knob")
    assert knob.accuracy == (0.7, 0.6, 0.8) and knob.baseline == 0.75 and knob.found is None
    version = fit_graph_now(session)
    later = privacy.last(session)
    assert later == replace(kept, is_champion=False) and later.snapshot != version


def test_a_second_audit_replaces_the_figures_of_the_first(session):
    privacy.keep(session, session.record.champion, FACTS)
    privacy.keep(session, session.record.champion, {**FACTS, "n_people": 15})
    assert privacy.last(session).n_people == 15
    assert session.store.champion(session.id).metrics["graph"]["n"] > 0  # the other metrics are there


def test_figures_of_a_snapshot_that_is_gone_are_refused(session):
    with pytest.raises(CoplError):
        privacy.keep(session, "v9999", FACTS)
    assert privacy.last(session) is None


def test_without_a_snapshot_there_is_nothing_to_audit(tmp_path):
    with pytest.raises(CoplError, match="no snapshot yet"):
        privacy.audited(open_study(tmp_path / "empty"))


def test_a_snapshot_that_knows_somebody_who_has_left_is_not_audited(session):
    forget.forget(session, privacy.audited(session).data.user_ids[0].item())
    with pytest.raises(CoplError, match="has left"):
        privacy.audited(session)


def test_a_fact_about_people_is_a_field_that_is_the_same_in_all_rows_of_each_of_them():
    rows = [
        (1, {"age": "18-24", "topic": "tea", "score": 0.5, "left-handed": True}),
        (1, {"age": "18-24", "topic": "bread"}),
        (2, {"age": "65+", "topic": "tea", "left-handed": False}),
    ]
    found = privacy.facts_of_people(rows)
    assert found == {"field age": {1: "18-24", 2: "65+"}, "field left-handed": {1: "True", 2: "False"}}


def test_attributes_go_by_the_rows_of_a_table_of_users():
    import numpy as np

    assert privacy.of_rows({"age": {7: "old", 3: "young"}}, np.array([3, 5, 7])) == {"age": ["young", None, "old"]}


def test_figures_say_how_many_of_their_people_have_been_left_out_since(session):
    privacy.keep(session, session.record.champion, FACTS)
    some = access.users(session)[:2]
    sentences = ["", "One of these people has since been left out", "2 of these people have since been left out"]
    for n, sentence in enumerate(sentences):
        if n:
            access.exclude(session, some[n - 1].id, True)
        found, graph = privacy.last(session), session.snapshot().graph
        assert found.n_left_out == privacy.n_left_out(session, graph) == n
        facts = card(session.snapshot().manifest, audit=found, n_left_out=n)
        for text in (model_card._privacy(facts), model_card._figures(facts)):
            assert sentence in text and ("been left out" in text) == bool(n)
    access.include_simulated(session, False)
    assert privacy.last(session).n_left_out == 16


def card(manifest: dict, **more: object) -> Card:
    metrics = {"copl": {"accuracy": 0.75, "log_loss": 0.5, "n": 20}, "copl-reward": {"accuracy": 0.75, "n": 20}}
    manifest = manifest | {"reward": {"metrics": metrics}}
    return Card("Study", "everybody", "everybody", manifest, Mix(1, 0, 0, 1, 0, 0), "minilm", False, False, False, 0.0,
                256, None, 0, None, (0.0, 0.0), datetime.now(UTC), **more)  # fmt: skip


def test_the_card_of_a_model_carries_the_figures_with_chance_and_says_where_they_are_of_another_snapshot(session):
    manifest = session.snapshot().manifest
    made = card(manifest)
    assert "Nobody has measured it" in model_card._privacy(made)
    made = replace(made, audit=privacy.keep(session, session.record.champion, FACTS))
    text = model_card._privacy(made)
    assert "| this answer in training | folder of a snapshot: reads it | 1.000 (0.990 to 1.000) |" in text
    assert "0.5 is chance" in text and "not the snapshot of this folder" not in text
    assert "not the snapshot of this folder" in model_card._privacy(
        replace(made, manifest={**manifest, "version": "v0009"})
    )
