"""The part of the settings page that downloads a study and restores one."""

from __future__ import annotations

from copl_core.records import Role
from copl_core.study import access, bundle, contents, sign_in


def test_a_downloaded_study_is_restored_under_another_name_by_its_owner(session, owner, open_page, words):
    browser = sign_in.begin(session.store, access.sign_in_token(session, owner.id))
    opened = open_page("settings", session, owner, browser=browser, **{"settings-part": "Studies"})
    opened.button(key="bundle-restore").click().run()
    assert "There is no file yet" in words(opened)
    content = bundle.bundle_file(session, by=owner.id)
    opened.file_uploader(key="bundle-file").set_value(("camps.zip", content, ""))
    opened.button(key="bundle-restore").click().run()
    assert "already; choose another name" in words(opened) and len(session.store.studies()) == 1
    opened.text_input(key="bundle-name").set_value("Again")
    opened.button(key="bundle-restore").click().run()
    assert not opened.exception and "Again is restored" in words(opened)
    made = session.store.studies()[-1]
    assert len(session.store.pairs(made.id)) == len(contents.prompts(session)) == 12
    there = sign_in.open_study(session.store, browser, made.id)
    assert (there.name, there.role) == ("Olga", Role.OWNER)


def test_a_file_that_is_no_bundle_is_refused_by_its_own_name(session, owner, open_page, words):
    opened = open_page("settings", session, owner, **{"settings-part": "Studies"})
    opened.file_uploader(key="bundle-file").set_value(("letter.zip", b"Dear all", ""))
    opened.button(key="bundle-restore").click().run()
    assert "letter\\.zip is no bundle, or is cut short" in words(opened) and "/tmp" not in words(opened)
    assert len(session.store.studies()) == 1
