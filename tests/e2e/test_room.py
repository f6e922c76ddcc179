"""Labels under double clicks, held keys, two tabs and a lost connection; what axe finds."""

from __future__ import annotations

import re
import socket
import sqlite3
import threading
from contextlib import suppress
from importlib.resources import files

import pytest

from tests.e2e.conftest import quiet

LEFT, RIGHT = re.compile("^A is better"), re.compile("^B is better")
# Streamlit nests the <ul> and <li> of a menu with sections incorrectly; a page cannot change that.
STREAMLITS_OWN = {("list", "[data-testid=stSidebarNavItems]"), ("listitem", "[data-testid=stSidebarNavItems]")}
# axe's serious and critical findings, as sentences.
GRAVE = """async (own) => (await axe.run(document, {resultTypes: ["violations"]})).violations
    .filter((found) => ["serious", "critical"].includes(found.impact))
    .flatMap((found) => found.nodes
        .filter((node) => !own.some(([rule, place]) => rule === found.id
                                    && document.querySelector(node.target[0])?.closest(place)))
        .map((node) => `${found.id}: ${node.target} ${node.failureSummary}`))"""


class Wire:
    """A proxy in front of the studio whose connections can be cut and restored."""

    def __init__(self, port: int) -> None:
        self.to, self.whole, self.closed = port, True, False
        self.open, self.changing = set(), threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        """End every connection and refuse new ones."""
        with self.changing:
            self.whole = False
            for end in self.open:
                _hang_up(end)

    def mend(self) -> None:
        self.whole = True

    def close(self) -> None:
        self.closed = True
        _hang_up(self.listener)
        self.cut()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:  # of a browser that has gone again, or of the end
                if self.closed:
                    return
                continue
            with client:
                self._join(client)

    def _join(self, client: socket.socket) -> None:
        """Carry between a browser and the studio, each way in a thread with sockets of its own, closed by it alone: the
        thread of an old connection must not read from a new one that the system gave the same number."""
        with self.changing, suppress(OSError):
            if not self.whole:
                return
            with socket.create_connection(("127.0.0.1", self.to)) as server:
                for one, other in ((client, server), (server, client)):
                    ends = one.dup(), other.dup()
                    self.open |= {*ends}
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        with self.changing:
            for end in (one, other):
                _hang_up(end)
                end.close()
                self.open.discard(end)


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def shown(page) -> tuple[str, str]:
    """The texts of the pair on screen, letters only, since Markdown is rendered.  Code is drawn a moment later."""
    quiet(page, 200)
    return tuple(letters(page.locator(f".st-key-response-{side}").inner_text()) for side in ("left", "right"))


def letters(text: str) -> str:
    return "".join(re.findall(r"[^\W\d_]", re.sub(r"```\w*", "", text)))


def stored(studio, person: str) -> list[tuple[tuple[str, str], str]]:
    """((left text, right text), choice) of the person's labels that count, oldest first; no task has two."""
    with sqlite3.connect(f"file:{studio.home / 'copl.db'}?mode=ro", uri=True) as database:
        rows = database.execute(
            "SELECT a.text, b.text, label.choice, label.task_id FROM label JOIN user ON user.id = label.user_id "
            "JOIN response a ON a.id = label.left_id JOIN response b ON b.id = label.right_id "
            "WHERE user.name = ? AND label.counts ORDER BY label.id",
            (person,),
        ).fetchall()
    tasks = [row[3] for row in rows]
    assert len(tasks) == len(set(tasks))
    return [((letters(left), letters(right)), choice) for left, right, choice, _ in rows]


def join(page, person: str, ready):
    page.get_by_label("Your name or a nickname").fill(person)
    page.get_by_role("button", name="Begin").click()
    page.get_by_text("0 answered").wait_for()
    return ready(page)


@pytest.fixture
def room(app, ready, request):
    """The labelling page of a new person, and their name."""
    return join(app.open(owner=False), request.node.name, ready), request.node.name


@pytest.fixture
def wire(studio):
    made = Wire(studio.port)
    yield made
    made.close()


@pytest.fixture
def wired_room(app, wire, ready, settled, request):
    """The same, through a connection that can be cut."""
    page = app.open(owner=False)
    page.goto(f"http://localhost:{wire.port}/")
    return join(settled(page), request.node.name, ready), request.node.name


@pytest.mark.parametrize("side, choice", [(LEFT, "left"), (RIGHT, "right")], ids=["left", "right"])
def test_a_double_click_stores_one_label(room, studio, settled, side, choice):
    page, person = room
    pair = shown(page)
    page.get_by_role("button", name=side).dblclick()
    page.get_by_text("1 answered").wait_for()
    quiet(page)
    assert stored(studio, person) == [(pair, choice)]
    assert shown(page) != pair


def middle(page, name: str) -> tuple[float, float]:
    """The middle of a button, in pixels of the window."""
    box = page.get_by_role("button", name=name).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_the_second_half_of_a_double_click_does_not_answer_the_next_pair(room, studio, settled):
    page, person = room
    pair = shown(page)
    page.mouse.click(*middle(page, LEFT))
    page.get_by_text("1 answered").wait_for()
    at = middle(quiet(page), LEFT)  # the next question may be longer
    page.mouse.move(*at)
    page.mouse.down(click_count=2)
    page.mouse.up(click_count=2)
    quiet(page)
    assert stored(studio, person) == [(pair, "left")]
    page.mouse.click(*at)  # and one that is meant counts
    page.get_by_text("2 answered").wait_for()


def test_a_key_that_is_held_down_answers_once(room, studio, settled):
    page, person = room
    pair = shown(page)
    page.keyboard.down("2")
    page.get_by_text("1 answered").wait_for()
    quiet(page)  # the next pair's shortcuts work
    for _ in range(10):
        page.keyboard.down("2")  # a repeated event, since the key is still down
    page.keyboard.up("2")
    quiet(page)
    assert stored(studio, person) == [(pair, "right")]
    page.keyboard.press("2")
    page.get_by_text("2 answered").wait_for()


def test_two_tabs_that_take_turns_store_what_each_of_them_showed_and_no_pair_twice(room, studio, settled, ready):
    page, person = room
    other = page.context.new_page()
    other.goto(page.url)
    tabs, meant = [page, ready(other)], []
    for turn in range(8):
        tab, key, choice = tabs[turn % 2], *(("1", "left") if turn % 3 else ("2", "right"))
        meant.append((shown(tab), choice))
        tab.bring_to_front()
        tab.keyboard.press(key)
        quiet(tab)
    votes = stored(studio, person)
    assert len(votes) >= 4  # each tab is stale at every other turn
    assert set(votes) <= set(meant)
    assert len({pair for pair, _ in votes}) == len(votes)


def test_a_vote_that_the_wire_swallowed_is_not_stored_and_the_page_comes_back(wired_room, wire, studio, ready):
    page, person = wired_room
    pair = shown(page)
    wire.cut()
    page.keyboard.press("1")
    page.wait_for_selector("[data-testid=stApp]:not([data-test-connection-state=CONNECTED])")
    page.keyboard.press("2")
    wire.mend()
    ready(page)
    assert stored(studio, person) == [] and shown(page) == pair
    page.keyboard.press("2")
    page.get_by_text("1 answered").wait_for()
    assert stored(studio, person) == [(pair, "right")]


@pytest.mark.parametrize("milliseconds", [0, 20, 100])
def test_a_wire_cut_just_after_a_vote_stores_it_once_and_nothing_else(
    wired_room, wire, studio, ready, settled, milliseconds
):
    page, person = wired_room
    pair = shown(page)
    page.keyboard.press("1")
    page.wait_for_timeout(milliseconds)  # the moment of the cut
    wire.cut()
    page.keyboard.press("1")
    page.wait_for_selector("[data-testid=stApp]:not([data-test-connection-state=CONNECTED])")
    wire.mend()
    ready(page)
    votes = stored(studio, person)
    assert votes in ([], [(pair, "left")])  # it may have been cut before it was sent
    page.get_by_text(f"{len(votes)} answered").wait_for()
    seen = shown(quiet(page))  # the texts are drawn after the number
    assert (seen == pair) == (not votes)
    page.keyboard.press("2")
    page.get_by_text(f"{len(votes) + 1} answered").wait_for()
    assert stored(studio, person) == [*votes, (seen, "right")]


def test_a_reason_survives_a_cut_wire(wired_room, wire, studio, ready, settled):
    page, person = wired_room
    pair = shown(page)
    page.get_by_text("Say why (optional)").click()
    words = page.get_by_role("textbox", name="In your words")
    words.press_sequentially("plain words")
    words.blur()
    quiet(page)
    wire.cut()
    page.wait_for_selector("[data-testid=stApp]:not([data-test-connection-state=CONNECTED])")
    wire.mend()
    ready(page)
    assert words.input_value() == "plain words" and shown(page) == pair
    page.get_by_role("button", name=LEFT).click()
    page.get_by_text("1 answered").wait_for()
    with sqlite3.connect(f"file:{studio.home / 'copl.db'}?mode=ro", uri=True) as database:
        reasons = database.execute(
            "SELECT label.reason FROM label JOIN user ON user.id = label.user_id WHERE user.name = ?", (person,)
        ).fetchall()
    assert reasons == [("plain words",)]


# ---- accessibility


@pytest.fixture(scope="module")
def axe() -> str:
    pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    return (files("axe_playwright_python") / "axe.min.js").read_text()


def grave(page, axe: str) -> list[str]:
    """axe's serious and critical findings, on a desktop and on a phone."""
    page.evaluate(axe)
    found = []
    for width in (1280, 400):
        page.set_viewport_size({"width": width, "height": 900})
        found += [f"{width} px: {one}" for one in quiet(page).evaluate(GRAVE, [list(one) for one in STREAMLITS_OWN])]
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["taste", "quality", "settings"])
def test_axe_finds_nothing_grave_on_a_page(app, axe, path, scheme):
    page = app.open(path, color_scheme=scheme)
    page.get_by_role("heading", level=1).wait_for()
    assert grave(page, axe) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_grave_on_the_labelling_page_with_everything_open_nor_before_joining(app, ready, axe, scheme):
    page = app.open(owner=False, color_scheme=scheme)
    assert grave(page, axe) == []
    join(page, f"axe, {scheme}", ready)
    page.keyboard.press("1")
    page.get_by_text("1 answered").wait_for()
    ready(page).keyboard.press("h")
    page.get_by_text("undo the last step").wait_for()
    ready(page).get_by_text("Say why (optional)").click()
    page.get_by_role("button", name="kinder").click()
    assert grave(quiet(page), axe) == []
    page.get_by_role("button", name="Report a problem").click()
    page.get_by_label("What is wrong with it?").wait_for()
    assert grave(page, axe) == []
