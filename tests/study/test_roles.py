"""Every verb names the role it needs, and refuses every other one before it does anything."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import pytest

import copl_core.study
from copl_core.records import CoplError, Role
from copl_core.study import access, contents, labelling, runs
from copl_core.study.roles import NOBODY_YET, OWNER, RESEARCHER, ROLES
from copl_core.study.session import Session
from tests.conftest import ROOT
from tests.worlds import open_study, pairs_to_label

UNCHECKED = {  # parts of verbs, which take a session and are called by verbs alone
    "access.give_owner", "drawn.drawn_people", "drawn.people_of_map",
    "found_features.strongest", "found_features.shown_by",
    "placement.adapted", "placement.vector", "placement.position_in", "runs.is_alive",
    "roles.need_role", "roles.member", "voters.are_of_snapshot", "voters.voters_of",
}  # fmt: skip
MODULES = [import_module(f"copl_core.study.{one.name}") for one in pkgutil.iter_modules(copl_core.study.__path__)]
VERBS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": function
    for module in MODULES
    for name, function in vars(module).items()
    if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    if next(iter(inspect.signature(function).parameters), "") == "session"
}


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    session = open_study(tmp_path_factory.mktemp("roles"))
    contents.import_rows(session, pairs_to_label(3))
    return session


@pytest.fixture(scope="module")
def actors(session) -> dict[str, int]:
    """Ids of a user of every role, of the owner of another study, and of somebody who is not signed in."""
    there = Session(session.store, session.settings, session.store.create_study("Elsewhere").id)
    users = {role.value: access.join(session, role.value, role).id for role in Role}
    return users | {"outsider": access.join(there, "Outsider", Role.OWNER).id, "nobody": NOBODY_YET}


def test_every_verb_is_in_the_table_of_roles():
    assert set(VERBS) - UNCHECKED == set(ROLES)


def test_the_page_on_privacy_says_what_researchers_take_away_and_what_only_owners_do():
    text = " ".join((ROOT / "docs" / "privacy.md").read_text().split())
    takes = {"user_map.labels_file", "experts.gates_csv", "controversy.export_csv"}
    assert {name for name in takes if ROLES[name] == RESEARCHER} == takes
    assert "a researcher can take away every label that counts" in text
    only = {"contents.import_rows", "exports.prepare", "bundle.bundle_file", "access.invite", "access.set_role"}
    assert {name for name in only if ROLES[name] == OWNER} == only
    assert "Only owners import, export for other tools, download bundles, invite and change roles." in text


def refused(needed) -> list[str]:
    if needed.terminal:
        return ["annotator", "researcher", "owner", "outsider", "nobody"]
    if needed.role is None:
        return []
    lower = {Role.OWNER: ["annotator", "researcher"], Role.RESEARCHER: ["annotator"], Role.ANNOTATOR: []}[needed.role]
    return [*lower, "outsider", "nobody"]


WRONG = [(verb, who) for verb, needed in sorted(ROLES.items()) for who in refused(needed)]


def call(session: Session, verb: str, **given: object) -> object:
    """Call a verb with something for every argument; the check comes before any of it is looked at."""
    function = VERBS[verb]
    parameters = list(inspect.signature(function).parameters.values())[1:]
    values = {one.name: None for one in parameters if one.default is inspect.Parameter.empty}
    return function(session, **(values | given))


@pytest.mark.parametrize(("verb", "who"), WRONG)
def test_a_verb_refuses_every_wrong_role(session, actors, verb, who):
    actor = actors[who]
    own = {"user_id": actor} if ROLES[verb].own else {}
    with pytest.raises(CoplError, match="may do this|in this study|in a terminal"):
        call(session.acting(actor), verb, **own)


@pytest.mark.parametrize("verb", sorted(verb for verb, needed in ROLES.items() if needed.role is Role.OWNER))
def test_by_is_checked_like_the_user_of_a_page(session, actors, verb):
    if "by" in inspect.signature(VERBS[verb]).parameters:
        with pytest.raises(CoplError, match="only an owner"):
            call(session, verb, by=actors["annotator"])


@pytest.mark.parametrize("verb", sorted(verb for verb, needed in ROLES.items() if needed.own))
def test_nobody_reads_or_changes_what_belongs_to_somebody_else(session, actors, verb):
    for who in ("annotator", "researcher", *(["owner"] if ROLES[verb].unless is None else [])):
        other = actors["owner" if who != "owner" else "annotator"]
        with pytest.raises(CoplError, match="somebody else|only an owner"):
            call(session.acting(actors[who]), verb, user_id=other)


def test_a_page_acts_for_its_user_alone(session, actors):
    with pytest.raises(CoplError, match="act for somebody else"):
        access.invite(session.acting(actors["annotator"]), by=actors["owner"])


def test_a_role_is_looked_up_at_every_act(session):
    rita = access.join(session, "Rita", Role.RESEARCHER)
    page = session.acting(rita.id)
    assert runs.list_runs(page) == []
    access.set_role(session, rita.id, Role.ANNOTATOR)
    with pytest.raises(CoplError, match="Rita is annotator here"):
        runs.list_runs(page)


def test_what_a_page_does_is_recorded_in_the_name_of_its_user(session, actors):
    page = session.acting(actors["owner"])
    labelling.write_guidelines(page, "Be fair.")
    access.include_simulated(page, False)
    access.include_simulated(page, True)
    assert {entry.user_id for entry in access.audit(session)[:3]} == {actors["owner"]}


def test_no_run_or_pair_of_another_study_is_reached_by_its_number(session, actors):
    there = Session(session.store, session.settings, session.store.create_study("Third").id)
    contents.import_rows(there, pairs_to_label(2, start=50))
    run = session.store.add_run(there.id, "graph", "")
    pair_id = session.store.pairs(there.id)[0][0]
    for act in (
        lambda: runs.cancel(session, run.id),
        lambda: runs.run_log(session, run.id),
        lambda: contents.pair(session, pair_id),
    ):
        with pytest.raises(CoplError, match="in this study"):
            act()
    assert contents.prompt_responses(session, session.store.prompts(there.id)[0][0]) == []
