"""Names of groups: made from what they prefer, kept by the snapshot, changed by owners alone."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from copl_core.records import CoplError, Kind, Role
from copl_core.study import access, contents, group_names, user_map
from tests.worlds import SHORT, camp_labels, camp_of, fit_graph_now, three_people
from tests.worlds import trained as trained_world


@pytest.fixture
def olga(trained):
    return access.join(trained, "Olga", Role.OWNER)


def group_of_camp(session, camp: str) -> int:
    view = user_map.map_of_users(session)
    return next(
        int(group)
        for name, group in zip(view.names.tolist(), view.group.tolist(), strict=True)
        if name.startswith("user") and camp_of(int(name[-2:])) == camp
    )


def test_before_the_first_snapshot_there_are_no_names(untrained):
    assert group_names.names(untrained) == {}


def test_groups_are_named_after_what_they_prefer_and_keep_their_names(trained):
    first = group_names.names(trained)
    assert "short" in first[group_of_camp(trained, SHORT)].lower() and len(set(first.values())) == 2
    contents.import_rows(trained, camp_labels(seed=1, per_user=4))
    fit_graph_now(trained)
    assert group_names.names(trained) == first == group_names.names(trained, "v0001")


def test_a_snapshot_of_before_there_were_names_has_them_too(trained):
    first = group_names.names(trained)
    path = trained.snapshot_root / "v0001" / "layout" / "layout.json"
    facts = json.loads(path.read_text())
    facts.pop("traits")
    size = path.stat().st_size
    path.write_text(json.dumps(facts).ljust(size))
    trained._snapshots.clear()
    trained._once.clear()
    assert group_names.names(trained) == first


def test_people_who_come_back_find_their_groups_names(trained, olga):
    first = group_names.names(trained)
    group_names.rename(trained, 1, "Engineers", by=olga.id)
    humans = [
        replace(row, annotator=f"human {row.annotator}") for row in camp_labels(n_users=2, seed=5, kind=Kind.HUMAN)
    ]
    contents.import_rows(trained, humans)
    access.include_simulated(trained, False)
    fit_graph_now(trained)
    access.include_simulated(trained, True)
    fit_graph_now(trained)
    assert group_names.names(trained) == {0: first[0], 1: "Engineers"}


def test_an_owner_names_a_group_in_every_snapshot_and_takes_the_name_back(trained, olga):
    first = group_names.names(trained)
    assert group_names.rename(trained, 1, "  Engineers  & co ", by=olga.id) == "Engineers & co"
    assert group_names.names(trained, "v0001") == {0: first[0], 1: "Engineers & co"}
    assert group_names.rename(trained, 1, "", by=olga.id) == first[1] and group_names.names(trained) == first
    changes = [(one.event, one.user_id, one.detail) for one in trained.store.audit(trained.id) if "name" in one.event]
    assert changes == [
        ("group name", olga.id, {"group": 2, "before": "Engineers & co", "after": ""}),
        ("group name", olga.id, {"group": 2, "before": "", "after": "Engineers & co"}),
    ]


@pytest.mark.parametrize(
    ("group", "name", "says"),
    [
        (7, "Engineers", "no group 8"),
        (0, "x" * 41, "41 characters"),
        (0, "a **b**", "sign '\\*'"),
        (0, "<b>", "sign '<'"),
        (0, ":red[x]", "sign ':'"),
        (0, "taken NAME", "Another group"),
    ],
)
def test_a_name_that_cannot_be_is_refused_in_a_sentence_and_changes_nothing(trained, olga, group, name, says):
    group_names.rename(trained, 1, "Taken name", by=olga.id)
    before = group_names.names(trained)
    with pytest.raises(CoplError, match=says):
        group_names.rename(trained, group, name, by=olga.id)
    assert group_names.names(trained) == before


def test_only_owners_name_groups(trained, olga):
    ann, ruth = access.join(trained, "Ann"), access.join(trained, "Ruth", Role.RESEARCHER)
    for one in (ann, ruth):
        with pytest.raises(CoplError, match="owner"):
            group_names.rename(trained, 0, "Engineers", by=one.id)
    assert "Engineers" not in group_names.names(trained).values()


def test_a_made_name_that_an_owner_gave_to_another_group_gets_its_number(trained, olga):
    first = group_names.names(trained)
    trained.store.rename_group(trained.id, 0, first[1])
    assert group_names.names(trained) == {0: first[1], 1: f"{first[1]} (2)"}


def test_the_name_of_a_group_of_few_people_is_not_for_everybody(trained, tmp_path, tmp_path_factory):
    assert group_names.names_of_large(trained) == group_names.names(trained) and group_names.large(trained) == [0, 1]
    few = trained_world(three_people, tmp_path_factory, tmp_path / "three")
    assert group_names.names(few) and group_names.names_of_large(few) == {} and group_names.large(few) == []
