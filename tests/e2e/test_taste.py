"""After ten keystrokes the model predicts which answer to a new question the person prefers."""

from __future__ import annotations

import re

import pytest

from copl_core.demo.world import DemoPrompt, Taste, held_back, load_prompts, tastes, utility


def letters(text: str) -> str:
    """A text without its markup, so that what the page shows can be looked up among the texts it was made from."""
    return "".join(re.findall(r"[^\W\d_]", re.sub(r"```\w*", "", text)))


def shown(page, side: str, styles: dict[str, dict[str, int]]) -> dict[str, int]:
    """The style of the answer on a side of the screen, once all of its text is drawn: code comes a moment later."""
    for _ in range(100):
        text = letters(page.locator(f".st-key-response-{side}", has_text=re.compile(r"\w")).inner_text())
        if text in styles:
            return styles[text]
        page.wait_for_timeout(100)
    raise AssertionError(f"no answer of the study is: {text}")


def key_of(taste: Taste, page, styles: dict[str, dict[str, int]]) -> str:
    """The key that a person of that taste presses for the pair on screen."""
    left, right = (utility(taste, shown(page, side, styles)) for side in ("left", "right"))
    return "1" if left > right else "2"


def label_by_keys(page, taste: Taste, count: int, settled, ready, done: int = 0) -> None:
    """Answer up to ``count`` pairs in all as a person of that taste, after the ``done`` of before."""
    ready(page)
    styles = {letters(response.text): response.style for prompt in load_prompts() for response in prompt.responses}
    for number in range(done, count):
        page.get_by_text(f"{number} answered").wait_for()
        page.keyboard.press(key_of(taste, settled(page), styles))
        page.get_by_text(f"{number + 1} answered").wait_for()


def best_and_worst(prompt: DemoPrompt, taste: Taste) -> tuple[str, str]:
    ranked = sorted(prompt.responses, key=lambda response: utility(taste, response.style))
    return ranked[-1].text, ranked[0].text


@pytest.mark.parametrize("name", ["brief and certain", "warm and thorough"])
def test_after_ten_keystrokes_the_reward_page_prefers_the_tastes_answer(app, settled, ready, name):
    taste = tastes()[name]
    page = app.open(owner=False)
    page.get_by_label("Your name or a nickname").fill(f"Visitor, {name}")
    page.get_by_role("button", name="Begin").click()
    page.locator(".st-key-response-left").wait_for()
    label_by_keys(page, taste, 10, settled, ready)

    owner = app.open("reward")
    person = f"Visitor, {name}"
    owner.get_by_role("combobox", name="People").fill(person)
    owner.get_by_role("option", name=person).click()
    owner.keyboard.press("Escape")
    for n, prompt in enumerate(held_back()):
        best, worst = best_and_worst(prompt, taste)
        winner = "BA"[n % 2]  # by turns, so that the previous prediction, still on screen, does not match
        answers = (worst, best) if winner == "B" else (best, worst)
        for label, text in zip(("Question", "Answer A", "Answer B"), (prompt.prompt, *answers), strict=True):
            owner.get_by_label(label, exact=True).fill(text)
            owner.get_by_label(label, exact=True).blur()
            settled(owner)
        owner.get_by_role("button", name="Predict", exact=True).click()
        owner.get_by_text(re.compile(rf"{re.escape(person)}: {winner}")).first.wait_for()


def test_after_ten_labels_the_people_page_shows_the_person_among_those_who_answer_alike(app, settled, ready):
    page = app.open()
    label_by_keys(page, tastes()["playful"], 10, settled, ready)
    page.get_by_role("link", name="People").click()
    # Which of the two sentences depends on the pairs that were drawn.
    page.get_by_text(
        re.compile(r"By your 10 labels you answer most like |Your 10 labels do not clearly fit one group yet")
    ).wait_for()
    page.get_by_text("You", exact=True).first.wait_for()
