"""Study settings: an owner invites people and sets how pairs are assigned; every change is in the record."""

from __future__ import annotations

import re

import pytest
from streamlit.testing.v1 import AppTest

from copl_core.command_line import command
from copl_core.records import Choice, ImportRow, Kind, Role
from copl_core.study import access, contents, labelling, privacy, sign_in
from copl_core.study.session import Session
from copl_core.study_settings import AssignmentSettings
from tests.plan import ROOT


@pytest.fixture
def page(session, owner, open_page):
    """Opens a part of the page for the owner."""
    return lambda part, **state: open_page("settings", session, owner, **{"settings-part": part, **state})


@pytest.mark.parametrize("role", [Role.ANNOTATOR, Role.RESEARCHER])
def test_only_an_owner_gets_in(session, open_page, words, role):
    page = open_page("settings", session, access.join(session, "Ann", role))
    assert "Only an owner" in words(page) and not page.button


def test_the_page_begins_with_how_the_study_stands(session, owner, page, words):
    ann = access.join(session, "Ann")
    labelling.report(session, ann.id, session.store.pairs(session.id)[0][1], "It is cut off.")
    labelling.set_assignment(session, AssignmentSettings(overlap=3, open=False))
    assert (
        "**Two camps** has 2 people. Each pair goes to 3 people. People join by invite only; no invite is open; "
        "**1 reported problem waits for you**."
    ) in words(page("Reports"))


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_field_gets_its_value_again_where_the_browser_may_have_missed_it(session, page, interrupted):
    labelling.set_assignment(session, AssignmentSettings(overlap=3))
    opened = page("Assignment")
    assert opened.number_input(key="assignment-overlap").proto.set_value
    opened.session_state["interrupted"] = interrupted
    opened.run()
    field = opened.number_input(key="assignment-overlap")
    assert field.value == 3 and field.proto.set_value == interrupted


def test_a_run_knows_whether_the_one_before_it_was_interrupted():
    from streamlit.testing.v1 import AppTest

    def script():
        import streamlit as st

        from pages.common import page_run, rerun

        with page_run():
            if st.button("Again"):
                rerun()
            if st.button("Break off"):  # as a click does, wherever the run stands
                st.rerun()

    page = AppTest.from_function(script).run()
    for number, interrupted in enumerate((False, True)):
        page.button[number].click().run()
        assert page.session_state["interrupted"] == interrupted
        page.run()
        assert not page.session_state["interrupted"]


# ---- people and invites


def test_an_invite_link_is_shown_once_and_lets_in_as_many_as_it_says(session, page, words):
    opened = page("People and invites")
    opened.selectbox(key="invite-role").set_value(Role.RESEARCHER)
    opened.number_input(key="invite-uses").set_value(2)
    opened.button(key="invite-make").click().run()
    assert "1 invite is open" in words(opened)
    secret = re.fullmatch(r".*/\?invite=(\S+)", opened.code[0].value)[1]
    assert access.find_invite(session, secret).uses == 2 and access.find_invite(session, secret).expires_at is not None
    assert access.accept_invite(session, secret, "Rita")[0].role == Role.RESEARCHER
    opened.run()
    assert not opened.code  # shown only once
    again = page("People and invites")
    assert not again.code and "1 joined so far" in "\n".join(one.value for one in again.markdown)


def test_an_invite_without_bounds_can_be_made_and_revoked(session, page, words):
    opened = page("People and invites")
    opened.number_input(key="invite-uses").set_value(None)
    opened.selectbox(key="invite-expires").set_value("never")
    opened.button(key="invite-make").click().run()
    ((made, state),) = access.invites(session)
    assert (made.uses, made.expires_at, state) == (None, None, "open")
    opened.button(key=f"revoke-{made.id}").click().run()
    assert access.invites(session)[0][1] == "revoked" and "nobody can join with it" in words(opened)
    assert "No invite is open" in words(opened)


def test_a_role_is_given_and_the_last_owner_stays_one(session, owner, page, words):
    ann = access.join(session, "Ann")
    opened = page("People and invites", **{"members-person": ann.id})
    opened.selectbox(key=f"role-{ann.id}-annotator").set_value(Role.RESEARCHER).run()
    opened.button(key=f"give-{ann.id}").click().run()
    assert access.user(session, ann.id).role == Role.RESEARCHER and "Ann is now researcher" in words(opened)
    opened = page("People and invites", **{"members-person": owner.id})
    opened.selectbox(key=f"role-{owner.id}-owner").set_value(Role.ANNOTATOR).run()
    opened.button(key=f"give-{owner.id}").click().run()
    assert access.user(session, owner.id).role == Role.OWNER and opened.error and not opened.success


def test_signing_out_everywhere_ends_every_link_and_a_new_one_can_be_made(session, page):
    ann = access.join(session, "Ann")
    old = access.sign_in_token(session, ann.id)
    opened = page("People and invites", **{"members-person": ann.id})
    opened.button(key=f"out-{ann.id}").click().run()
    assert access.sign_in(session, old) is None
    opened.button(key=f"link-{ann.id}").click().run()
    assert access.sign_in(session, opened.code[0].value.partition("token=")[2]).id == ann.id


def test_a_name_with_signs_of_markdown_is_shown_as_it_is(session, page):
    kim = access.join(session, "Kim *2* [x](y)")
    opened = page("People and invites", **{"members-person": kim.id})
    for key in (f"out-{kim.id}", f"link-{kim.id}"):
        opened.button(key=key).click().run()
        assert "signs in as Kim \\*2\\* \\[x\\]\\(y\\)" in opened.success[0].value


def test_an_address_is_given_a_role_or_refused(session, page):
    for role in (Role.RESEARCHER, None):
        opened = page("People and invites")
        opened.text_input(key="email-address").set_value("rita@example.org")
        opened.selectbox(key="email-role").set_value(role or "refused")
        opened.button(key="email-set").click().run()
        assert not opened.exception and [(rule.email, rule.role) for rule in access.emails(session)] == [
            ("rita@example.org", role)
        ]


# ---- assignment


def test_every_assignment_setting_is_saved_as_it_stands(session, owner, page, words):
    opened = page("Assignment")
    opened.toggle(key="assignment-open").set_value(False)
    for key, value in {"overlap": 3, "practice": 2, "goal": 25, "reserve": 4.5}.items():
        opened.number_input(key=f"assignment-{key}").set_value(value)
    for key, value in {"uniform": 30, "repeats": 20, "gold": 10}.items():
        opened.slider(key=f"assignment-{key}").set_value(value)
    opened.selectbox(key="assignment-order").set_value("random")
    opened.text_input(key="assignment-pictures").set_value("b.org, A.org")
    opened.button(key="assignment-save").click().run()
    assert labelling.assignment_settings(session) == AssignmentSettings(
        overlap=3,
        open=False,
        order="random",
        uniform=0.3,
        repeats=0.2,
        gold=0.1,
        practice=2,
        reserve_minutes=4.5,
        daily_goal=25,
        picture_hosts=("a.org", "b.org"),
    )
    assert "Saved." in words(opened) and access.audit(session)[0].user_id == owner.id


def test_a_bound_is_lifted_by_emptying_its_field(session, page):
    labelling.set_assignment(session, AssignmentSettings(overlap=2, daily_goal=5, reserve_minutes=3))
    opened = page("Assignment")
    for key in ("overlap", "goal", "reserve"):
        assert opened.number_input(key=f"assignment-{key}").value is not None
        opened.number_input(key=f"assignment-{key}").set_value(None)
    opened.button(key="assignment-save").click().run()
    assert labelling.assignment_settings(session) == AssignmentSettings()


def test_opening_the_form_and_saving_changes_nothing(session, page):
    settings = AssignmentSettings(overlap=2, uniform=0.25, daily_goal=5, picture_hosts=("a.org", "b.org:8443"))
    labelling.set_assignment(session, settings)
    page("Assignment").button(key="assignment-save").click().run()
    assert labelling.assignment_settings(session) == settings


def test_a_host_that_is_none_is_a_sentence_and_nothing_is_saved(session, page):
    opened = page("Assignment")
    opened.number_input(key="assignment-overlap").set_value(4)
    opened.text_input(key="assignment-pictures").set_value("https://a.org/")
    opened.button(key="assignment-save").click().run()
    assert "give names of hosts such as pictures.example.org" in opened.error[0].value
    assert labelling.assignment_settings(session) == AssignmentSettings()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("assignment-overlap", 0, "people per pair is 0"),
        ("assignment-reserve", -1.0, "reserved for -1.0 minutes"),
        ("assignment-goal", 0, "daily goal is 0"),
    ],
)
def test_settings_that_are_invalid_are_reported_in_a_sentence_and_not_saved(session, page, key, value, message):
    opened = page("Assignment")
    opened.number_input(key=key).set_value(value)
    opened.button(key="assignment-save").click().run()
    assert message in opened.error[0].value and labelling.assignment_settings(session) == AssignmentSettings()


def test_shares_that_leave_nothing_are_reported(session, page):
    opened = page("Assignment")
    opened.slider(key="assignment-repeats").set_value(60)
    opened.slider(key="assignment-gold").set_value(40)
    opened.button(key="assignment-save").click().run()
    assert (
        "leave nothing for new pairs" in opened.error[0].value
        and labelling.assignment_settings(session) == AssignmentSettings()
    )


# ---- guidelines, gold pairs, reports


def test_guidelines_are_previewed_saved_as_versions_and_brought_back(session, page, words):
    opened = page("Guidelines")
    for number, text in enumerate(("Be **fair**.", "Be quick.")):
        opened.text_area(key=f"guidelines-{number}").set_value(text)
        opened.button(key="guidelines-save").click().run()
        assert labelling.guidelines(session).version == number + 1 and labelling.guidelines(session).text == text
    opened.button(key="restore-1").click().run()
    assert (labelling.guidelines(session).version, labelling.guidelines(session).text) == (3, "Be **fair**.")
    opened.button(key="guidelines-save").click().run()
    assert labelling.guidelines(session).version == 3 and "no new version" in words(opened)


def test_a_pair_is_searched_made_gold_and_freed_again(session, page, words):
    opened = page("Gold pairs")
    opened.text_input(key="gold-search").set_value("MATTERS number 7").run()
    found, count = contents.find_pairs(session, "matters number 7")
    assert count == 1 and "1 pair found" in words(opened)
    opened.button(key=f"gold-B-{found[0].id}").click().run()
    (known,) = labelling.gold(session)
    assert (known.pair_id, known.preferred_id) == (found[0].id, found[0].second.id)
    assert "This pair is already gold" in words(opened)
    opened.button(key=f"ungold-{known.pair_id}").click().run()
    assert labelling.gold(session) == []


def test_a_search_that_finds_nothing_or_much_says_so(session, page, words):
    opened = page("Gold pairs")
    opened.text_input(key="gold-search").set_value("zebra").run()
    assert "0 pairs found" in words(opened)
    opened.text_input(key="gold-search").set_value("number").run()
    assert "12 pairs found. The first 5" in words(opened)


def test_a_reported_problem_is_read_and_resolved(session, owner, page, words):
    pair = session.store.pairs(session.id)[0]
    made = labelling.report(session, access.join(session, "Ann").id, pair[1], "It is cut off.")
    opened = page("Reports")
    assert "It is cut off." in words(opened) and contents.responses(session, [pair[1]])[pair[1]].text in words(opened)
    opened.button(key=f"resolve-{made.id}").click().run()
    assert labelling.reports(session) == [] and "No reported problem is open" in words(opened)
    opened.toggle(key="reports-resolved").set_value(True).run()
    assert "by Olga" in words(opened)


def test_the_pairs_of_a_reported_answer_are_withdrawn_and_handed_out_again(session, page, words):
    pair = session.store.pairs(session.id)[0]
    made = labelling.report(session, access.join(session, "Ann").id, pair[1], "It is offensive.")
    n_labels = session.store.label_count(session.id)
    opened = page("Reports")
    opened.button(key=f"withdraw-reported-{made.id}").click().run()
    assert [one.pair_id for one in labelling.withdrawn_pairs(session)] == [pair[0]]
    assert session.store.label_count(session.id) == n_labels and labelling.reports(session) == [made]
    assert "Nobody gets a pair with this answer any more" in words(opened)
    opened.button(key=f"again-{pair[0]}").click().run()
    assert labelling.withdrawn_pairs(session) == [] and "handed out again" in words(opened)


def test_a_pair_that_nobody_reported_is_found_and_withdrawn(session, page, words):
    opened = page("Reports")
    opened.text_input(key="withdraw-search").set_value("MATTERS number 7").run()
    (found,), _ = contents.find_pairs(session, "matters number 7")
    opened.button(key=f"withdraw-{found.id}").click().run()
    assert [one.pair_id for one in labelling.withdrawn_pairs(session)] == [found.id]
    assert "This pair is withdrawn" in words(opened)


# ---- the record and other studies


def test_the_record_tells_who_changed_what(session, owner, page):
    access.set_role(session, access.join(session, "Ann").id, Role.RESEARCHER, by=owner.id)
    labelling.set_assignment(session, AssignmentSettings(overlap=1, open=False), by=owner.id)
    lines = page("Record").table[0].value["what"].tolist()
    assert lines[:2] == [
        "Olga changed people per pair from everybody to 1 and who may join from anybody with the address to invited "
        "people\\.",
        "Olga changed the role of Ann from annotator to researcher\\.",
    ]
    only = page("Record", **{"record-events": ["roles"]}).table[0].value["what"].tolist()
    assert only == [line for line in lines if "the role of" in line]


def test_simulated_people_are_switched_off_in_the_owners_name(session, owner, page):
    page("Studies").toggle(key="settings-simulated").set_value(False).run()
    assert not session.record.include_simulated and access.audit(session)[0].user_id == owner.id


def test_language_models_are_learned_from_only_if_the_owner_says_so(session, owner, page, words):
    assert not [one for one in page("Studies").toggle if one.key == "settings-models"], "the study has none"
    pair = contents.pair(session, session.store.pairs(session.id)[0][0])
    texts = pair.prompt, pair.first.text, pair.second.text
    contents.import_rows(session, [ImportRow(1, *texts, Choice.LEFT, "gpt-4", key="m", kind=Kind.MODEL)])
    before = session.store.label_count(session.id)
    page("Studies").toggle(key="settings-models").set_value(True).run()
    assert session.record.include_models and session.store.label_count(session.id) == before + 1
    assert access.audit(session)[0].user_id == owner.id
    assert "has 1 person and 1 language model." in words(page("Studies"))


def test_a_new_study_is_for_invited_people_and_belongs_to_its_maker(session, owner, page):
    browser = sign_in.begin(session.store, access.sign_in_token(session, owner.id))
    opened = page("Studies", browser=browser)
    opened.text_input(key="new-study-name").set_value("Second")
    opened.button(key="new-study-make").click().run()
    assert not opened.exception and session.store.current_study().id == session.id
    made = session.store.studies()[-1]
    assert made.name == "Second" and not session.store.assignment_settings(made.id).open
    there = sign_in.open_study(session.store, browser, made.id)
    assert (there.name, there.role) == ("Olga", Role.OWNER)


def test_a_name_in_use_makes_no_study(session, page, words):
    opened = page("Studies")
    opened.text_input(key="new-study-name").set_value("Two camps")
    opened.button(key="new-study-make").click().run()
    assert "already" in words(opened) and len(session.store.studies()) == 1


def test_an_owner_deletes_the_study_by_its_name_after_a_copy_was_offered(session, owner, page, words):
    other = session.store.create_study("Second")
    opened = page("Studies", **{"delete-study": True})
    assert "go for good" in words(opened) and "Download this study" in [
        one.label for one in opened.get("download_button")
    ]
    opened.text_input(key="delete-study-name").set_value("Second")
    opened.button(key="delete-study-make").click().run()
    assert "the name to type is Two camps" in opened.error[0].value and len(session.store.studies()) == 2
    opened.text_input(key="delete-study-name").set_value("Two camps")
    opened.button(key="delete-study-make").click().run()
    assert not opened.exception and "Two camps is deleted" in words(opened)
    assert session.store.studies() == [other] and session.store.deleted_studies()[0].in_app


def test_the_only_study_stays(session, owner, page):
    opened = page("Studies", **{"delete-study": True})
    opened.text_input(key="delete-study-name").set_value("Two camps")
    opened.button(key="delete-study-make").click().run()
    assert "only study of this installation" in opened.error[0].value and len(session.store.studies()) == 1


def test_newcomers_are_shown_this_study(session, owner, page, words):
    other = session.store.create_study("Second")
    session.store.make_current(other.id)
    opened = page("Studies")
    opened.button(key="make-front").click().run()
    assert session.store.current_study().id == session.id and "without a link now see this study" in words(opened)


@pytest.mark.parametrize("host", ["localhost:8501", "127.0.0.1", "127.0.1.1:80", "[::1]:8501"])
def test_a_link_that_only_this_machine_opens_says_so_and_what_to_do(host):
    from pages.account import only_here

    words = only_here(f"http://{host}/?invite=secret")
    assert "works on this machine only" in words and "COPL_ADDRESS=0.0.0.0" in words and "secret" not in words
    assert only_here("http://studio.example.org/?invite=secret") == only_here("http://192.168.1.4:8501/") == ""


def test_the_sentence_stands_below_a_new_link(page, monkeypatch):
    from pages import members

    monkeypatch.setattr(members, "address", lambda: "http://localhost:8501")
    opened = page("People and invites")
    opened.button(key="invite-make").click().run()
    assert "localhost" in opened.code[0].value and "works on this machine only" in opened.warning[0].value


# ---- privacy


def test_before_an_audit_the_section_says_how_to_make_one(page, words):
    opened = page("Privacy")
    assert "Nothing is measured yet" in words(opened) and command("audit") in words(opened) and not opened.dataframe


def test_the_figures_of_an_audit_stand_beside_chance_with_what_hides_them(two_snapshots, open_page, words):
    session, owner = two_snapshots, access.owner(two_snapshots)
    one = {
        "observer": "rewards of a person",
        "attack": "loss",
        "auc": 0.836,
        "low": 0.826,
        "high": 0.847,
        "found": 0.16,
    }
    rows = [
        {**one, "part": "label"},
        {**one, "part": "answer", "attack": "labels it has learned"},
        {**one, "part": "attribute", "attack": "age", "accuracy": [0.9, 0.85, 0.94], "baseline": 0.2},
        {**one, "part": "knob", "observer": "rounded to 1", "accuracy": [0.64, 0.62, 0.65], "baseline": 0.69},
    ]
    audit = {"n_labels": 160, "n_people": 16, "revision": 3, "rows": rows}
    newest, earlier = (record.version for record in session.store.snapshots(session.id))
    privacy.keep(session, earlier, audit)
    before = words(open_page("settings", session, owner, **{"settings-part": "Privacy"}))
    assert f"Snapshot **{earlier}**" in before and "a newer one is champion" in before
    privacy.keep(session, newest, audit)
    opened = open_page("settings", session, owner, **{"settings-part": "Privacy"})
    assert f"Snapshot **{newest}**" in words(opened) and "a newer one is champion" not in words(opened)
    assert "**0.5 is chance**" in words(opened)
    label, answer, attribute, knob = (one.value for one in opened.dataframe)
    assert label.loc[0, ["AUC", "95%", "chance", "found"]].tolist() == [0.836, "0.83 to 0.85", 0.5, 0.16]
    assert answer.loc[0, "of"] == "labels it has learned" and attribute.loc[0, "most frequent"] == 0.2
    assert knob.loc[0, ["measure", "accuracy", "without it"]].tolist() == ["rounded to 1", 0.64, 0.69]
    assert "left out" not in words(opened)
    access.exclude(session, next(one.id for one in access.users(session) if one.id != owner.id), True)
    later = words(open_page("settings", session, owner, **{"settings-part": "Privacy"}))
    assert "One of these people has since been left out of the study's training" in later


def test_the_section_is_in_the_address_so_that_a_reload_keeps_it(session, owner):
    page = AppTest.from_file(str(ROOT / "pages" / "settings.py"), default_timeout=30)
    page.session_state["session"], page.session_state["user"] = session, owner
    page.query_params["settings-part"] = "Guidelines"
    page.run()
    assert page.pills(key="settings-part").value == "Guidelines"


def test_the_list_of_people_says_how_many_labels_they_have_and_when_they_were_seen(session, owner, page, label):
    ann = access.join(session, "Ann")
    access.join(session, "Ben")
    label(session, ann, 3)
    labelling.undo(session, ann.id)
    sign_in.begin(session.store, access.sign_in_token(session, ann.id))
    table = next(one.value for one in page("People and invites").dataframe if "last seen" in one.value)
    rows = {row["person"]: (row["labels"], row["last seen"]) for row in table.to_dict("records")}
    assert rows["Ann"] == (2, "today") and rows["Ben"] == (0, "")
    other = Session(session.store, session.settings, session.store.create_study("Other").id)
    assert access.activity(other, [ann.id]) == {}
