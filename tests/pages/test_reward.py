"""The reward page: who prefers what and how surely, for people, groups, oneself, and somebody with five answers."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from shutil import copytree
from threading import Thread

import numpy as np
import pytest

from copl_core.features import VERSION
from copl_core.records import Role
from copl_core.reward.model import RewardConfig
from copl_core.snapshots.mix import Mix
from copl_core.snapshots.snapshot import write_snapshot
from copl_core.study import access, contents, group_names, rewards, runs
from copl_core.study.scoring import Scorer, _group_favourites
from copl_core.trainer.service import execute_runs
from copl_core.training.reward_fit import fit_reward
from tests.pages.conftest import ROOT
from tests.worlds import SHORT, by_style, label_in_camp, layout_of, long_text, short_text, trainer

pytest_plugins = "tests.reward.tiny"
ANSWERS = [short_text(77), long_text(77)]
PROMPT = "And what of number 77?"
NEW = {"query": (PROMPT, ANSWERS)}


def texts(page) -> tuple[str, list[str]]:
    """What stands in the page's fields: the question, and the answers."""
    values = {one.label: one.value for one in page.text_area}
    return values.pop("Question"), list(values.values())


@pytest.fixture
def camps(camps):
    """Two camps with a graph; texts are read by their style features alone."""
    camps._scorer[:] = [Scorer(camps.settings, embed=by_style)]
    return camps


@pytest.fixture
def olga(camps):
    return access.join(camps, "Olga", Role.OWNER)


@pytest.fixture
def rewarded(camps, tiny_encoder, nothing):
    """The same with a small reward model, whose gate knows the camps apart."""
    data, before = camps.store.training_data(camps.id), camps.snapshot()
    config = RewardConfig(
        backbone=str(tiny_encoder), n_experts=3, rank=2, max_tokens=32, epochs=1, min_steps=1, precision="float32"
    )
    model = fit_reward(data, before.graph.user_vectors, config, weights=nothing)

    def save(folder):
        before.graph.save(folder / "graph")
        model.save(folder / "model")
        (folder / "mix.json").write_text(json.dumps(asdict(Mix(0.5, 0.5, 20, 0.0, 1.0))))

    write_snapshot(
        camps.snapshot_root,
        "v0002",
        graph=before.graph,
        layout=layout_of(before.graph),
        manifest={"watermark": before.watermark, "reward": {"fitted_in": "v0002"}},
        save_reward=save,
    )
    record = runs.snapshots(camps)[0]
    camps.store.publish(
        camps.id, type(record)("v0002", None, record.watermark, record.n_labels, {}, record.created_at), run_id=None
    )
    return camps


def test_without_a_snapshot_the_page_says_when_it_will_work(session, owner, open_page, words):
    assert "A reward comes from a snapshot, and there is none yet" in words(open_page("reward", session, owner))


def test_it_opens_with_the_pair_that_divides_the_groups_and_says_so(camps, olga, open_page, words):
    page = open_page("reward", camps, olga)
    shown = words(page)
    assert texts(page)[0].startswith("What about number")
    assert "Olga: not known, since no answer of theirs has been learned from" in shown and "Olga: **" not in shown
    assert "The groups differ: " in shown
    prompt, answers = texts(page)
    worth = rewards.reward(camps, prompt, answers).groups_own
    assert worth.for_groups > worth.for_all + 0.2 and "**No answer suits all.**" in shown
    assert f"One answer for all pleases {worth.for_all:.0%} at best, each group its own {worth.for_groups:.0%}" in shown
    assert "Snapshot v0001" in shown
    assert not page.error, page.error[0].value


def test_what_was_typed_is_there_when_the_page_opens_again(camps, olga, open_page):
    page = open_page("reward", camps, olga)
    page.text_area[0].set_value("What shall I cook?").run()
    page.text_area[2].set_value("Soup.").run()
    again = open_page("reward", camps, olga)  # another browser session of hers
    assert texts(again)[0] == "What shall I cook?" and texts(again)[1][1] == "Soup."
    assert again.text_area[1].value == page.text_area[1].value
    someone = access.join(camps, "Rita", Role.RESEARCHER)
    assert "What shall I cook?" not in texts(open_page("reward", camps, someone))


def test_the_verdict_of_a_person_is_bold_only_where_answers_of_theirs_tell_it(camps, olga, open_page, words):
    ann = access.join(camps, "Ann")
    label_in_camp(camps, ann.id, SHORT, 12)
    shown = words(open_page("reward", camps, olga, **NEW, people=[f"user {olga.id}", f"user {ann.id}"]))
    assert "Olga: not known" in shown and "Ann: **A**" in shown


def test_names_beside_figures_are_in_full_and_every_axis_ends_at_its_end(camps, olga, open_page):
    name = "Short, unhedged, plain and without examples"
    group_names.rename(camps, 0, name[:40])
    page = open_page("reward", camps, olga, **NEW)
    figure = json.loads(page.get("plotly_chart")[0].proto.spec)
    rows = {str(row).replace("<br>", " ") for row in figure["data"][0]["y"]}
    assert name[:40].strip() in rows
    assert [axis["ticktext"][-1] for key, axis in figure["layout"].items() if key.startswith("xaxis")] == ["100%"] * 2
    assert name[:40].strip() in page.table[0].value["favourite of"].str.cat(sep=" · ")


def test_every_run_tells_the_browser_the_texts_since_it_may_never_draw_those_of_one(camps, olga, open_page):
    page = open_page("reward", camps, olga, **NEW)
    for _ in range(2):
        assert [one.proto.default for one in page.text_area] == [PROMPT, *ANSWERS]
        page.run()
    page.selectbox(key="picked").set_value(contents.prompts(camps)[3][0]).run()
    assert texts(page)[0] == page.text_area[0].proto.default == contents.prompts(camps)[3][1]


def as_model_of(session, folder) -> str:
    """The name of a model that the person who runs the studio has copied into its folder of models."""
    copytree(folder, session.settings.model_root / "tiny")
    return "tiny"


def test_a_model_that_is_asked_nothing_says_so_and_what_was_judged_stays(camps, olga, open_page, words, tiny_writer):
    name = as_model_of(camps, tiny_writer)
    page = open_page("reward", camps, olga, writer=True, model=name, **NEW)
    page.text_area[0].set_value("").run()
    next(one for one in page.button if one.label == "Write answers").click().run()
    assert "The question is empty" in words(page) and texts(page) == ("", ANSWERS)
    assert page.session_state["query"] == (PROMPT, ANSWERS)


def test_new_texts_are_judged_for_the_people_and_groups_that_are_chosen(camps, olga, open_page, words):
    users = {user.name: user.id for user in access.users(camps)}
    people = [f"user {users['user 00']}", f"user {users['user 01']}"]
    page = open_page("reward", camps, olga, people=people, **NEW)
    shown = words(page)
    assert "user 00: **A**" in shown and "user 01: **B**" in shown and "Olga: " not in shown
    assert "For user 00, **A** is the robust choice too" in shown
    page.multiselect(key="people").set_value([*people, "group 0"]).run()
    first, second = group_names.names(camps).values()
    assert re.search(rf"\*\*{re.escape(first)}\*\* (is about even between A and B|prefers \*\*[AB]\*\*)", words(page))
    assert f"**{second}**" not in words(page)


def test_advice_names_the_answer_that_suits_all_where_every_group_prefers_it(camps):
    from pages.reward_results import advice

    view = rewards.reward(camps, PROMPT, ANSWERS)
    likes_short = replace(next(row for row in view.groups if row.best == 0), favourites=(0,))
    same = replace(view, rows=(likes_short, replace(likes_short, name="Group 9", size=1)))
    assert advice(same, same.groups_own).startswith("**A suits all**: every group prefers it")
    assert same.groups_own.for_all == same.groups_own.for_groups == pytest.approx(likes_short.win[0])


def test_a_group_without_a_certain_favourite_is_about_even_in_words_ranking_and_advice(camps):
    from pages.reward_results import advice, answer_row, of_groups, wins_of

    found = rewards.reward(camps, "What about number 3?", [short_text(3), long_text(3)])
    assert sorted(row.favourites for row in found.groups) == [(0,), (1,)] and "The groups differ: " in of_groups(found)
    likes_short = next(row for row in found.groups if row.best == 0)
    torn = replace(likes_short, name="Torn", win=np.array([0.49, 0.51]), favourites=(1, 0))
    view = replace(found, rows=(likes_short, torn))
    assert (
        of_groups(view) == f"**{likes_short.name}** prefers **A**. **Torn** is about even between A and B (49% to 51%)."
    )
    assert wins_of(torn)["ranking"] == "B ≈ A" and wins_of(likes_short)["ranking"] == "A > B"
    assert answer_row(view, 0)["favourite of"] == f"{likes_short.name} · Torn (about even)"
    assert advice(view, view.groups_own).startswith("**A suits all**: no group prefers another with certainty (1 of 2")


@pytest.mark.parametrize(
    ("logits", "favourites"),
    [
        ([[2.0, 0.0]] * 30, (0,)),
        ([[0.0, 0.1]] * 30, (1, 0)),  # certain, and smaller than anybody could notice
        ([[2.0, 0.0]] * 16 + [[0.0, 2.0]] * 14, (0, 1)),  # by chance among its people
        ([[0.6, 0.0]] * 80 + [[0.0, 9.0]] * 20, (0, 1)),  # the mean of rewards says the opposite
        ([[2.0, 1.95, 0.0]] * 30, (0, 1)),
    ],
)
def test_a_group_prefers_what_it_prefers_with_certainty(logits, favourites):
    logits = np.array(logits)
    powers = np.exp(logits)
    assert _group_favourites(powers / powers.sum(1, keepdims=True), logits) == favourites


def test_the_leading_expert_is_one_that_outweighs_all_others(camps):
    from pages.reward_results import expert_in_words

    row = replace(rewards.reward(camps, PROMPT, ANSWERS).rows[0], name="Ann", gates=np.array([0.1, 0.7, 0.2]))
    assert expert_in_words(row) == "Ann: E2 (70%)"
    torn = replace(row, gates=np.array([0.34, 0.33, 0.33]))
    assert expert_in_words(torn) == "Ann: none stands out, E1 (34%) is the largest"


def test_weak_effects_stay_without_colour_and_the_scale_has_a_floor():
    from pages.reward_results import LEAST_SCALE, NOISE, tinted

    depth = [float(tinted(rewards.Piece("words", effect), LEAST_SCALE).split(",")[3].split(")")[0])
             for effect in (NOISE / 2, -NOISE / 2, 0.1, 2 * LEAST_SCALE)]  # fmt: skip
    assert depth[:2] == [0, 0] and 0 < depth[2] < 0.2 and depth[3] == 0.6


def test_a_snapshot_of_an_earlier_version_reads_new_texts_by_the_features_it_learned(camps, tmp_path):
    """Both graphs have the same weights; the texts reach each by its own version of the features."""
    read = []

    def watched(texts, progress=None, features_version=0):
        read.append(features_version)
        return by_style(texts, progress, features_version)

    camps._scorer[:] = [Scorer(camps.settings, embed=watched)]
    present = rewards.reward(camps, PROMPT, ANSWERS)
    path = camps.snapshot_root / "v0001" / "graph" / "graph.json"
    about, size = json.loads(path.read_text()), path.stat().st_size
    del about["features"]
    path.write_text(json.dumps(about).ljust(size))
    camps._snapshots.clear()
    earlier = rewards.reward(camps, PROMPT, ANSWERS)
    assert read == [VERSION, 1]
    assert not any(np.allclose(one.reward, other.reward) for one, other in zip(present.rows, earlier.rows, strict=True))


def test_sentences_are_tinted_by_what_they_add(camps, olga, open_page):
    users = {user.name: user.id for user in access.users(camps)}
    for name in ("user 00", "user 01"):
        page = open_page("reward", camps, olga, people=[f"user {users[name]}"], **NEW)
        html = "".join(element.proto.body for element in page.get("html"))
        assert "There is a good deal to say" in html and "log-odds" in html
    short, long = (
        rewards.attribution(camps, PROMPT, ANSWERS, users=[users[name]])[0] for name in ("user 00", "user 01")
    )
    assert sum(piece.effect for piece in short.responses[1]) < 0 < sum(piece.effect for piece in long.responses[1])
    assert "".join(piece.text for piece in long.responses[1]) == ANSWERS[1]


def test_oneself_after_five_answers_stands_beside_oneself_after_all(camps, olga, open_page, words):
    label_in_camp(camps, olga.id, SHORT, 4)
    page = open_page("reward", camps, olga, **NEW)
    assert "You after your first 5 answers" not in page.multiselect(key="people").options
    assert page.multiselect(key="people").value == [f"user {olga.id}", "group 0", "group 1"]
    label_in_camp(camps, olga.id, SHORT, 5)
    page = open_page("reward", camps, olga, people=[f"user {olga.id}", f"first {olga.id}"], **NEW)
    shown = words(page)
    assert "Olga: **A**" in shown and "Olga after 5 answers: **A**" in shown
    one, first = rewards.reward(camps, PROMPT, ANSWERS, users=[olga.id], first=[olga.id], groups=False).rows
    assert first.high[0] - first.low[0] > one.high[0] - one.low[0]  # fewer answers leave more open


def test_oneself_comes_first_then_groups_then_the_others_by_name(camps, olga, open_page):
    access.join(camps, "zoe"), access.join(camps, "Abe")
    shown = open_page("reward", camps, olga, **NEW).multiselect(key="people").options
    assert shown[:5] == ["Olga (you)", *group_names.names(camps).values(), "Abe", "zoe"]
    assert shown[5:] == [f"user {n:02d} (simulated)" for n in range(16)]


def test_five_answers_given_on_the_page_place_somebody_and_are_stored_nowhere(camps, olga, open_page, drawn, words):
    before = camps.record.revision
    page = open_page("reward", camps, olga, **NEW)
    page.button(key="try").click().run()
    for n in range(5):
        assert f"Pair {n + 1} of 5" in words(page)
        buttons = [one for one in page.button if one.label in ("I prefer A", "I prefer B")]
        shown = drawn(page)
        short = [one for one in shown if one in {short_text(i) for i in range(12)}]
        assert len(buttons) == 2 and len(short) == 1
        first_is_short = shown.index(short[0]) < max(
            i for i, one in enumerate(shown) if one.startswith("There is a good deal")
        )
        buttons[0 if first_is_short else 1].click().run()
        assert not page.exception and texts(page) == (PROMPT, ANSWERS)  # hidden meanwhile, and not lost
    shown = words(page)
    assert "rests on these answers alone" in shown and "You by these 5 answers: **A**" in shown
    assert "For you, by these 5 answers, **" in shown and "nearest to you it wins" in shown
    assert camps.record.revision == before and len(access.users(camps)) == 17
    next(one for one in page.button if one.label == "Answer five other pairs").click().run()
    assert "Pair 1 of 5" in words(page)
    page.button(key="stop-trying").click().run()
    assert "You by " not in words(page) and not page.button(key="try").disabled


def test_where_the_text_reward_has_no_weight_no_expert_is_named_and_the_page_says_why(rewarded, olga, open_page, words):
    for weights, query in (
        (Mix(0.9, 0.0, 120, 0.5, 0.5), "What about number 3?"),
        (Mix(0.5, 0.5, 20, 1.0, 0.0, 7), PROMPT),
    ):
        rewarded.snapshot().__dict__["mix"] = weights
        texts = ANSWERS if weights.text else [short_text(3), long_text(3)]
        view = rewards.reward(rewarded, query, texts)
        assert all(row.expert is None and row.gates is None and not row.text.any() for row in view.rows)
        shown = words(open_page("reward", rewarded, olga, query=(query, texts)))
        assert "None. No expert has a say here" in shown and ": E" not in shown
        found = rewards.attribution(rewarded, query, texts, groups=[0])[0]
        assert "text reward" not in found.basis


def test_a_reward_model_adds_its_gates_and_its_share(rewarded, olga, open_page, words):
    users = {user.name: user.id for user in access.users(rewarded)}
    page = open_page(
        "reward",
        rewarded,
        olga,
        people=[f"user {users['user 00']}"],
        query=("What about number 3?", [short_text(3), long_text(3)]),
    )
    shown = words(page)
    assert (
        "Which experts speak" in shown
        and "user 00: E" in shown
        and "preference graph 50%; text reward by experts 50%" in shown
        and "the expert with the largest weight serves the person" in shown
        and "not on these texts" in shown
    )
    view = rewards.reward(rewarded, "What about number 3?", [short_text(3), long_text(3)], users=[users["user 00"]])
    (parts,) = (one.value for one in page.table if "own text weights" in one.value)
    assert {"graph", "experts"} <= set(parts) and "graph’s share" not in parts
    for row in view.rows:
        assert row.experts == pytest.approx(row.text, abs=1e-6)  # no own text weights here
        assert row.reward == pytest.approx(row.graph + row.text, abs=1e-5) and row.gates.sum() == pytest.approx(1)
        assert (row.low <= row.high).all() and sum(row.margins) > 0
    assert view.worst_off == pytest.approx([min(row.win[i] for row in view.groups) for i in range(2)])


def test_a_language_model_writes_into_the_fields_and_its_answers_are_judged(camps, olga, open_page, words, tiny_writer):
    name = as_model_of(camps, tiny_writer)
    page = open_page("reward", camps, olga, writer=True, model=name, longest=8, **NEW)
    next(one for one in page.button if one.label == "Write answers").click().run()
    assert not page.exception and not page.error
    prompt, written = texts(page)
    assert len(written) in (2, 3) and all(written) and prompt == PROMPT
    assert f"Written by {name}, " in next(one.help for one in page.text_area if one.label == "Answer A")
    assert page.session_state["query"][1] == written and "Who would prefer which" in words(page)
    assert "Stop" not in [one.label for one in page.button]


def test_typed_answers_stay_where_that_is_wanted_and_where_no_model_can_be_loaded(
    camps, olga, open_page, words, tiny_writer
):
    page = open_page("reward", camps, olga, writer=True, model="nobody/nothing", **NEW)
    next(one for one in page.button if one.label == "Write answers").click().run()
    assert "'nobody/nothing' cannot be loaded from this machine" in words(page)
    assert texts(page) == (PROMPT, ANSWERS)
    page = open_page("reward", camps, olga, writer=True, model=str(tiny_writer), **NEW)
    next(one for one in page.button if one.label == "Write answers").click().run()
    assert "is no folder below the studio's folder of models" in words(page) and texts(page) == (PROMPT, ANSWERS)
    name = as_model_of(camps, tiny_writer)
    page = open_page("reward", camps, olga, writer=True, model=name, longest=8, keep=True, **NEW)
    next(one for one in page.button if one.label == "Write answers").click().run()
    fields = texts(page)[1]
    assert fields[:2] == ANSWERS and len(fields) > 2


def test_a_trainer_that_offers_it_writes_the_answers(camps, olga, open_page, words, tiny_writer, monkeypatch):
    name = as_model_of(camps, tiny_writer)
    here = trainer(camps)
    camps.store.heartbeat(here.worker, "gpu-7", ("write",), "waiting", "cuda")
    lane = Thread(target=execute_runs, args=(here, "write"))
    lane.start()
    try:
        monkeypatch.setattr(rewards, "writer", lambda *_, **__: pytest.fail("the app loads the model"))
        page = open_page("reward", camps, olga, writer=True, model=name, longest=8, **NEW)
        assert "The model runs on a trainer (gpu-7)." in words(page)
        next(one for one in page.button if one.label == "Write answers").click().run()
        assert not page.exception and not page.error
        assert len(texts(page)[1]) in (2, 3) and all(texts(page)[1])
    finally:
        here.stop.set()
        lane.join()


@pytest.mark.parametrize(
    ("answers", "problem"), [(["same", "same"], "same text"), (["one", " "], "two or more are needed")]
)
def test_texts_that_cannot_be_compared_are_reported_in_a_sentence(camps, olga, open_page, words, answers, problem):
    page = open_page("reward", camps, olga, query=("Why?", answers))
    assert problem in words(page) and not page.exception


def test_the_address_names_a_pair_or_a_question_and_people(camps, olga, open_page):
    from streamlit.testing.v1 import AppTest

    pair = contents.pair(camps, camps.store.pairs(camps.id)[4][0])
    for query in ({"pair": str(pair.id)}, {"question": str(pair.prompt_id)}):
        page = AppTest.from_file(str(ROOT / "pages" / "reward.py"), default_timeout=30)
        page.session_state["session"], page.session_state["user"] = camps, olga
        for name, value in (query | {"people": "1,2"}).items():
            page.query_params[name] = value
        page.run()
        assert not page.exception and texts(page)[0] == pair.prompt
        assert page.multiselect(key="people").value == ["user 1", "user 2", "group 0", "group 1"]


@pytest.mark.parametrize("number", ["²", "-1", "9" * 30, "9" * 5000, "7.5", "one"])
def test_an_address_that_names_no_number_is_read_past(camps, olga, number):
    from streamlit.testing.v1 import AppTest

    for name, value in {"reward": "pair", "training": "run"}.items():
        page = AppTest.from_file(str(ROOT / "pages" / f"{name}.py"), default_timeout=30)
        page.session_state["session"], page.session_state["user"] = camps, olga
        page.query_params[value], page.query_params["people"] = number, f"{number},1"
        page.run()
        assert not page.exception


def test_a_damaged_snapshot_is_reported(camps, olga, open_page, words):
    (camps.snapshot_root / "v0001" / "graph" / "graph.json").unlink()
    page = open_page("reward", camps, olga, **NEW)
    assert "Snapshot v0001 is damaged" in words(page) and not page.exception
