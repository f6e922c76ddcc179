"""Controversy: the page's summary, cards, filters, marks, links and pinned pairs."""

from __future__ import annotations

import json

import pytest

from copl_core.records import Role
from copl_core.study import access, contents, controversy, labelling, triads
from tests.study.test_triads import circling_labels
from tests.worlds import fit_graph_now, open_study, pairs_to_label


@pytest.fixture
def rosa(camps):
    return access.join(camps, "Rosa", Role.RESEARCHER)


def html(page) -> str:
    return "\n".join(element.proto.body for element in page.get("html"))


@pytest.fixture
def card_titles(drawn):
    return lambda page: [one for one in drawn(page) if one.startswith("What about number")]


def test_without_a_snapshot_the_page_says_what_it_waits_for(session, owner, open_page, words):
    assert "comes from a snapshot, and there is none yet" in words(open_page("controversy", session, owner))


def test_a_damaged_snapshot_is_reported_in_a_sentence(camps, rosa, open_page, card_titles, words):
    (camps.snapshot_root / "v0001" / "graph" / "graph.safetensors").write_bytes(b"cut short")
    page = open_page("controversy", camps, rosa)
    assert "Snapshot v0001 is damaged" in page.error[0].value and not card_titles(page)


def test_the_page_starts_as_a_table_and_a_figure_without_cards(camps, rosa, open_page, card_titles, words):
    page = open_page("controversy", camps, rosa)
    assert "of 12 pairs at least one group is expected to prefer A and another one B" in words(
        page
    ) and not card_titles(page)
    rows, first = page.dataframe[0].value, controversy.ranked(camps, 1).items[0]
    assert len(rows) == 12 and rows["between groups"].is_monotonic_decreasing
    assert rows["between groups"][0] == pytest.approx(400 * first.between)
    assert rows["within people"][0] == pytest.approx(400 * (first.within + first.aleatoric))
    assert rows["question"][0] == first.prompt and rows["people"][0] == first.voters
    assert "Snapshot v0001" in words(page)


def test_a_click_on_a_row_opens_its_card_and_closing_clears_it(camps, rosa, open_page, card_titles, words):
    page = open_page("controversy", camps, rosa)
    third = controversy.ranked(camps, 3).items[-1]
    assert page.session_state["listed"][1][2] == third.id
    page.query_params["pair"] = str(third.id)  # as the click does
    page.run()
    shown = words(page)
    assert card_titles(page) == [third.prompt] and f"Pair {third.id}" in shown
    assert (
        f"Between groups **{4 * third.between:.0%}**" in shown and f"Uncertainty **{4 * third.epistemic:.0%}**" in shown
    )
    assert f"{third.voters} people have answered" in shown and "longer answers" in shown
    assert "of the words are in both answers" in shown
    page.button(key="unchoose").click().run()
    assert not card_titles(page) and "pair" not in page.query_params


def test_a_and_b_stand_on_the_same_sides_in_texts_and_bars(camps, rosa, open_page):
    first = controversy.ranked(camps, 1).items[0]
    page = open_page("controversy", camps, rosa)
    page.query_params["pair"] = str(first.id)
    page.run()
    figure = json.loads(page.get("plotly_chart")[1].proto.spec)
    ends = [one["text"] for one in figure["layout"]["annotations"]]
    assert ends == ["all prefer A", "even", "all prefer B"] and figure["layout"]["annotations"][0]["xanchor"] == "left"
    bars = [one["x"][0] + one["base"] for one in figure["data"] if one["type"] == "bar"]
    assert bars == pytest.approx([1 - share for _, share in reversed(first.by_group)])


def test_the_opposite_list_answers_and_filters(camps, rosa, open_page, card_titles, words):
    page = open_page("controversy", camps, rosa)
    page.segmented_control(key="order").set_value("agreed").run()
    assert "agree with the most certainty" in words(page)
    calm = controversy.ranked(camps, 12, consensus=True).items
    assert page.dataframe[0].value["question"].tolist() == [pair.prompt for pair in calm]
    page.segmented_control(key="kind").set_value("responses").run()
    assert "of 24 answers are expected to win in one group" in words(page) and len(page.dataframe[0].value) == 24
    one = controversy.ranked(camps, 1, query=controversy.Query("responses", True)).items[0]
    page.query_params["answer"] = str(one.id)
    page.run()
    assert card_titles(page) == [one.prompt] and "This answer, compared with the others" in words(page)
    page.button(key=f"pair-{one.id}").click().run()
    assert page.query_params["pair"] == str(one.pair_id) and "answer" not in page.query_params
    page.number_input(key="votes").set_value(1000).run()
    assert "No answers match these filters" in words(page) and not page.dataframe
    page.number_input(key="votes").set_value(0).run()
    prompt = contents.prompts(camps)[3]
    page.selectbox(key="in-prompt").set_value(prompt[0]).run()
    assert set(page.dataframe[0].value["question"]) == {prompt[1]} and page.query_params["prompt"] == str(prompt[0])


def test_a_link_opens_its_pair_and_a_wrong_one_is_reported(camps, rosa, open_page, card_titles, words):
    last = controversy.ranked(camps, 12).items[-1]
    page = open_page("controversy", camps, rosa)
    page.query_params["pair"] = str(last.pair_id)
    page.run()
    assert card_titles(page) == [last.prompt] and f"Pair {last.pair_id}" in words(page)
    for name in ("pair", "answer"):
        page.query_params.clear()
        page.query_params[name] = "987654"
        page.run()
        assert f"does not know {name} 987654" in page.warning[0].value and len(page.dataframe[0].value) == 12


def test_asking_puts_the_pair_before_everybody_and_can_be_ended(camps, rosa, open_page, words):
    pair = controversy.ranked(camps, 1).items[0].pair_id
    page = open_page("controversy", camps, rosa)
    page.query_params["pair"] = str(pair)
    page.run()
    page.button(key=f"ask-{pair}").click().run()
    assert "Requested by Rosa just now; 0 answered since" in words(page)
    assert labelling.next_task(camps, access.join(camps, "Ann").id).pair_id == pair
    page.button(key=f"end-{pair}").click().run()
    assert labelling.pinned_pairs(camps) == [] and page.button(key=f"ask-{pair}")
    assert not [one for one in page.button if one.key == f"withdraw-{pair}"], "owners withdraw pairs"


def test_an_owner_withdraws_the_pair_and_hands_it_out_again(camps, open_page, words):
    pair = controversy.ranked(camps, 1).items[0].pair_id
    page = open_page("controversy", camps, access.join(camps, "Olga", Role.OWNER))
    page.query_params["pair"] = str(pair)
    page.run()
    page.button(key=f"withdraw-{pair}").click().run()
    assert [one.pair_id for one in labelling.withdrawn_pairs(camps)] == [pair] and "nobody gets it" in words(page)
    assert not [one for one in page.button if one.key == f"ask-{pair}"]
    page.button(key=f"again-{pair}").click().run()
    assert labelling.withdrawn_pairs(camps) == [] and page.button(key=f"ask-{pair}")


def test_what_differs_is_marked_and_no_text_becomes_markup(tmp_path, tmp_path_factory, open_page, words):
    from copl_core.records import Choice, ImportRow, Kind
    from tests.worlds import camp_labels, fit_graph_now

    session = open_study(tmp_path / "own")
    a = "Take <img src=x onerror=alert(1)> eight eggs and *boil* them in a pot of salted water until they are done."
    b = "Take <img src=x onerror=alert(1)> three eggs and *boil* them in a pot of salted water until they are done."
    contents.import_rows(session, pairs_to_label(6))
    contents.import_rows(session, camp_labels(n_users=3, n_prompts=6, per_user=5))
    contents.import_rows(
        session, [ImportRow(0, "Eggs?", a, b, Choice.LEFT, "user 00", key="eggs", kind=Kind.SIMULATED)]
    )
    fit_graph_now(session)
    rosa = access.join(session, "Rosa", Role.RESEARCHER)
    page = open_page("controversy", session, rosa)
    pair = next(p for p in controversy.ranked(session, 12).items if p.prompt == "Eggs?")
    page.query_params["pair"] = str(pair.pair_id)
    page.run()
    body = html(page)
    assert "> eight</mark>" in body and "> three</mark>" in body
    assert "<img" not in body and "&lt;img src=x" in body
    page.toggle(key="marks").set_value(False).run()
    assert "<mark" not in html(page)
    assert "too few to check the model" in words(page)


def test_where_nobody_compared_three_answers_the_page_says_so(camps, open_page, words):
    olga = access.join(camps, "Olga", Role.OWNER)
    assert "Nobody has compared three answers to one question with each other" in words(
        open_page("controversy", camps, olga)
    )


def test_preferences_that_go_in_circles_are_told_with_what_noise_makes(tmp_path, open_page, words):
    session = open_study(tmp_path / "circling")
    contents.import_rows(session, circling_labels())
    fit_graph_now(session)
    olga = access.join(session, "Olga", Role.OWNER)
    total = triads.triads(session).total
    page = open_page("controversy", session, olga)
    shown = words(page)
    assert f"**{total.circular} of 64 triads** of 8 people go in a circle" in shown
    assert f"noise alone would make {total.expected:.1f}" in shown and "**That is more than noise**" in shown
    listed = page.dataframe[-1].value
    assert {"person", "circles", "by noise"} <= set(listed.columns)
    assert len(listed) == len(triads.triads(session).people)
