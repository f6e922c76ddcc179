"""The verbs of the Reward page, before there is a reward model."""

from __future__ import annotations

from dataclasses import replace
from shutil import copytree

import pytest

from copl_core.records import CoplError, ImportRow, Role
from copl_core.snapshots.snapshot import Snapshot
from copl_core.study import access, contents, group_profiles, rewards, user_map
from copl_core.study.audience import DRAWS, Audience
from copl_core.study.rewards import FIRST
from copl_core.study.session import Session
from tests.worlds import fit_graph_now, label_in_camp, long_text, open_study, short_text

pytest_plugins = "tests.reward.tiny"


def test_rewards_of_known_texts_come_from_the_graph_before_there_is_a_reward_model(trained):
    users = {user.name: user.id for user in access.users(trained)}
    prompt, texts = "What about number 3?", [short_text(3), long_text(3)]
    view = rewards.reward(
        trained, f" {prompt}\n", texts, users=[users["user 00"], users["user 01"], access.join(trained, "Ann").id]
    )
    likes_short, likes_long, ann, *groups = view.rows
    assert likes_short.win[0] > 0.6 and likes_long.win[1] > 0.6
    assert (likes_short.source, ann.source) == ("trained", "population mean")
    assert likes_short.kind == "simulated person" and ann.kind == "person"
    assert [row.size for row in groups] == [8, 8] and {row.kind for row in groups} == {"group"}
    for row in view.rows:
        assert row.win.sum() == pytest.approx(1) and row.reward.sum() == pytest.approx(0, abs=1e-5)
        assert row.expert is None and row.gate is None
    assert view.known and view.snapshot == "v0001" and "graph alone" in view.basis
    swapped = rewards.reward(trained, prompt, texts[::-1], users=[users["user 00"]], groups=False)
    assert len(swapped.rows) == 1 and swapped.rows[0].win == pytest.approx(likes_short.win[::-1])


def test_a_user_after_five_answers_is_scored_by_other_users_and_not_by_later_answers(trained):
    user = next(user for user in access.users(trained) if user.name == "user 00")
    assert len(trained.store.labels(trained.id, user_id=user.id)) > FIRST
    snapshot = trained.snapshot()
    placed = rewards._users(trained, snapshot.graph, [user.id], [user.id], [])
    audience = Audience(snapshot, placed, groups=False)
    own = audience.vectors[audience.users[0].own]
    for rows in audience.users:
        near = audience.vectors[rows.neighbours]
        assert len(near) and not (near == own).all(1).any()
    assert [rows.source for rows in audience.users] == ["trained", "neighbours"]


@pytest.mark.parametrize(
    ("prompt", "responses", "problem"),
    [
        ("", ["a", "b"], "The prompt is empty"),
        ("why", ["a"], "Responses with text: 1; two or more"),
        ("why", ["a", "  "], "Responses with text: 1"),
        ("why", ["a", " a "], "the same text"),
        ("w" * 500_001, ["a", "b"], "The prompt has 500,001 characters, and 500,000 is the most; shorten it"),
        ("why", ["a", "b" * 5_000_000], "Response 2 has 5,000,000 characters"),
    ],
)
def test_a_question_that_cannot_be_scored_gives_a_sentence(trained, prompt, responses, problem):
    with pytest.raises(CoplError, match=problem):
        rewards.reward(trained, prompt, responses)


@pytest.fixture
def researcher(tmp_path, tiny_writer) -> Session:
    """A researcher of a studio with the model "tiny", a link that leads out of the folder, and a model beside it."""
    session = open_study(tmp_path / "home")
    root = session.settings.model_root
    copytree(tiny_writer, root / "tiny")
    copytree(tiny_writer, tmp_path / "secret")
    (root / "link").symlink_to(tmp_path / "secret", target_is_directory=True)
    (root / "deep").mkdir()
    return session.acting(access.join(session, "Rita", Role.RESEARCHER).id)


def test_a_researcher_names_a_model_below_the_folder_of_models_by_its_name_or_its_path(researcher):
    for name in ("tiny", " tiny ", str(researcher.settings.model_root / "tiny"), "deep/../tiny"):
        assert rewards.writer(researcher, name).name == name.strip()


def test_a_researcher_names_no_other_folder(researcher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = (
        str(tmp_path / "secret"), "../../secret", "secret", "./secret", "link", "..", ".", "", "/", "~", "a\0b",
        "x/" * 5000, "x" * 5000, str(researcher.settings.model_root), "no/such/folder",
    )  # fmt: skip
    for name in names:
        with pytest.raises(CoplError, match="is no folder below the studio's folder of models .* no Hugging Face id"):
            rewards.writer(researcher, name)
    assert rewards.writer(researcher.acting(None), str(tmp_path / "secret")).window, "the terminal may name any"


def test_a_folder_of_models_elsewhere_is_a_setting_and_a_page_does_not_say_where(researcher, tmp_path):
    researcher.settings = replace(researcher.settings, models=str(tmp_path))
    assert rewards.writer(researcher, "secret").name == "secret"
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nobody/no-such-model"):
        with pytest.raises(CoplError, match=f"The language model '{name}' cannot be loaded") as refused:
            rewards.writer(researcher, name)
        assert str(tmp_path) not in str(refused.value)


def test_a_single_text_that_is_too_long_gives_a_sentence(trained):
    user = access.users(trained)[0].id
    for text in (("w" * 5_000_000, "a"), ("why", "a" * 5_000_000)):
        with pytest.raises(CoplError, match="has 5,000,000 characters"):
            rewards.pointwise(trained, [text], user=user)


def test_the_sentences_of_a_text_that_is_too_long_are_not_read_either(trained):
    with pytest.raises(CoplError, match="has 5,000,000 characters"):
        rewards.attribution(trained, "w" * 5_000_000, ["a", "b"], groups=True)


def test_a_group_has_as_many_people_as_on_the_people_page_also_those_after_the_last_fit(trained, monkeypatch):
    before = trained.snapshot().graph
    label_in_camp(trained, access.join(trained, "Ann").id, "short", 10)
    fit_graph_now(trained)
    snapshot = trained.snapshot()
    monkeypatch.setattr(Snapshot, "has_reward", True)
    snapshot.__dict__["reward_graph"] = before  # the reward model of a run before Ann came
    audience = Audience(snapshot, [], groups=True)
    assert audience.sizes == {one.group: one.people for one in group_profiles.profiles(trained)}
    assert sorted(audience.sizes.values()) == [8, 9]
    assert sorted(rows.stop - rows.start for rows in audience.groups.values()) == [8, 8]


def test_a_text_is_known_if_it_has_labels_in_the_snapshot_whatever_space_is_around_it(trained):
    row = ImportRow(1, " What about number 3?", f" {short_text(3)}", "A response that nobody has labelled.")
    contents.import_rows(trained, [row])
    state = trained.snapshot().graph
    texts = trained.store.responses(state.response_ids.tolist())
    found = rewards._known_rows(trained, "What about number 3?", [long_text(3), short_text(3)], trained.snapshot())
    assert [texts[int(state.response_ids[one])].text for one in found] == [long_text(3), short_text(3)]
    for prompt, responses in (
        ("What about number 3?", [short_text(3), row.response_b]),
        ("What about number 4?", [short_text(3), long_text(3)]),
        ("", ["", ""]),
    ):
        assert rewards._known_rows(trained, prompt, responses, trained.snapshot()) is None


def test_the_group_of_a_row_is_that_of_the_map_with_and_without_intervals(trained):
    ann = access.join(trained, "Ann").id
    label_in_camp(trained, ann, "long", 4)
    users = [*(user.id for user in access.users(trained))]
    placed = rewards._users(trained, trained.snapshot().graph, users, [], [])
    expected = [user_map.position(trained, user).group for user in users]
    for uncertain in (True, False):
        audience = Audience(trained.snapshot(), placed, groups=False, with_uncertainty=uncertain)
        assert [rows.group for rows in audience.users] == expected and set(expected) == {0, 1}
        n_drawn = {rows.drawn.stop - rows.drawn.start for rows in audience.users}
        assert n_drawn == ({DRAWS} if uncertain else {0})
