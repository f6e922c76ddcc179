"""People of a benchmark who label in the real app: each one is a session of the app over its websocket, as a browser
opens it, without the browser.

A visitor signs in by a link, reads the page as its messages, clicks the buttons of the pair that it shows, and goes to
the next app where one does not answer.  What a visitor knows is what its screen says: an answer is acknowledged once
the page counts it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from random import Random
from urllib.parse import urlsplit

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

BUTTON = re.compile(r"\$\$ID-\w+-(a-is-better|b-is-better|tie)-(\d+)$")
REASON = re.compile(r"\$\$ID-\w+-reason-(\d+)$")
JOIN = "Your name or a nickname"
ANSWERED = re.compile(r"([\d,]+) answered, ")
STEP_SECONDS = 30.0  # for one run of a page
AWAY = (OSError, WebSocketException, HTTPException, asyncio.TimeoutError, EOFError)


@dataclass
class Screen:
    """What a page shows after a run: its pair, how many answers it counts, and its errors."""

    task: int | None = None
    buttons: dict[str, str] = field(default_factory=dict)  # name → id of the widget
    fragment: str = ""
    answered: int | None = None
    joins: bool = False  # it shows the form of somebody who is not signed in
    reason: tuple[int, str, str] | None = None  # (task, id of the field, the draft in it)
    sentences: list[str] = field(default_factory=list)  # errors, as the app says them
    tracebacks: list[str] = field(default_factory=list)  # errors that the app does not explain

    def read(self, message: ForwardMsg) -> None:
        """Take in one message; only new elements matter."""
        if message.WhichOneof("type") != "delta" or message.delta.WhichOneof("type") != "new_element":
            return
        element = message.delta.new_element
        kind = element.WhichOneof("type")
        if kind == "button" and (found := BUTTON.match(element.button.id)):
            self.task, self.fragment = int(found[2]), message.delta.fragment_id
            self.buttons[found[1]] = element.button.id
        elif kind == "markdown" and (found := ANSWERED.match(element.markdown.body)):
            self.answered = int(found[1].replace(",", ""))
        elif kind == "text_area" and (found := REASON.search(element.text_area.id)):
            field = element.text_area
            self.reason = int(found[1]), field.id, field.value if field.set_value else field.default
        elif kind == "text_input" and element.text_input.label == JOIN:
            self.joins = True
        elif kind in ("alert", "toast"):
            self.sentences.append(getattr(element, kind).body)
        elif kind == "exception":
            self.tracebacks.append(f"{element.exception.type}: {element.exception.message}")


@dataclass
class Visitor:
    """One person with a sign-in link.

    Args:
        addresses: of the apps, as ``http://host:port``; the first is the one that a balancer would choose.
        drafts: the share of pairs for which the visitor types a reason first.
    """

    name: str
    token: str
    addresses: list[str]
    random: Random
    drafts: float = 0.0
    acknowledged: set[int] = field(default_factory=set)  # tasks
    doubtful: set[int] = field(default_factory=set)  # tasks whose answer was sent, and no page came back
    milliseconds: list[float] = field(default_factory=list)  # from a click to the next pair
    apps: Counter[str] = field(default_factory=Counter)  # acknowledged answers by app
    sentences: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    moves: int = 0
    done: bool = False  # no pair is left
    cookie: str = ""
    draft: tuple[int, str] | None = None  # (task, words) that the page has taken
    drafts_seen: int = 0  # on pages that were opened again
    signed_out: int = 0  # pages that did not know the visitor
    gaps: list[float] = field(default_factory=list)  # seconds from a lost connection to the next page
    lost_at: float | None = None

    async def label(self, is_over: Callable[[], bool], think: float) -> None:
        """Label until it is over, with about ``think`` seconds for each pair."""
        await asyncio.sleep(self.random.uniform(0, think))
        while not is_over() and not self.done:
            try:
                await self._visit(is_over, think)
            except AWAY:
                self._move()
                await asyncio.sleep(self.random.uniform(0.2, 1.0))

    async def look(self, patience: float) -> None:
        """Open the page once more, until it answers: what is in doubt is decided."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                async with self._connection() as connection:
                    if self._see(await _run(connection)):
                        self.doubtful.clear()  # the page does not count them
                        return
            except AWAY:
                self._move()
            await asyncio.sleep(0.5)
        self.faults.append(f"{self.name}: no page within {patience:.0f} s")

    async def _visit(self, is_over: Callable[[], bool], think: float) -> None:
        """Label at one app until it does not answer."""
        if not self.cookie:
            self.cookie = await asyncio.to_thread(sign_in, self.addresses[0], self.token)
        async with self._connection() as connection:
            screen = await _run(connection)
            self._came_back(screen)
            while self._see(screen) and not is_over() and screen.task is not None:
                if self.random.random() < self.drafts:
                    await self._type_a_reason(connection, screen)
                await asyncio.sleep(self.random.uniform(0.5, 1.5) * think)
                screen = await self._answer(connection, screen)
            if screen.answered is None:
                await asyncio.sleep(0.5)  # the page says what is wrong; it is opened again
            else:
                self.done = screen.task is None

    def _came_back(self, screen: Screen) -> None:
        """After a lost connection: how long it took, and whether what was typed is still there."""
        self.signed_out += screen.joins
        if self.lost_at is None or screen.answered is None:
            return
        self.gaps.append(time.perf_counter() - self.lost_at)
        self.lost_at = None
        if self.draft is not None and screen.reason is not None and screen.reason[0] == self.draft[0]:
            self.drafts_seen += 1
            if screen.reason[2] != self.draft[1]:
                self.faults.append(f"{self.name}: the draft is {screen.reason[2]!r}, and was {self.draft[1]!r}")

    async def _type_a_reason(self, connection: ClientConnection, shown: Screen) -> None:
        if shown.reason is None or shown.reason[0] != shown.task:
            return
        task, widget, _ = shown.reason
        words = f"because {self.random.random():.6f}"
        self.draft = None  # unknown until the page has run
        screen = await _run(connection, shown, typed=(widget, words))
        if not screen.sentences:  # an error says that it is not kept
            self.draft = task, words

    async def _answer(self, connection: ClientConnection, before: Screen) -> Screen:
        task, started = before.task, time.perf_counter()
        assert task is not None
        self.doubtful.add(task)
        screen = await _run(connection, before, self.random.choice(list(before.buttons)))
        if self._see(screen) and task in self.acknowledged:
            self.milliseconds.append((time.perf_counter() - started) * 1000)
            self.apps[self.addresses[0]] += 1
        return screen

    def _see(self, screen: Screen) -> bool:
        """Compare what the page counts with what was acknowledged; False where the page shows an error."""
        self.sentences.update(screen.sentences)
        self.faults += [f"{self.name}: {one}" for one in screen.tracebacks]
        if screen.answered is None:
            return False
        more = screen.answered - len(self.acknowledged)
        if more == len(self.doubtful):
            self.acknowledged |= self.doubtful
        elif more != 0:
            self.faults.append(
                f"{self.name}: the page counts {screen.answered} answers, {len(self.acknowledged)} were acknowledged "
                f"and {len(self.doubtful)} are in doubt"
            )
            self.acknowledged |= self.doubtful
        if more or screen.task not in self.doubtful:
            self.doubtful.clear()
        return True

    def _connection(self) -> connect:
        address = self.addresses[0].replace("http://", "ws://")
        return connect(
            f"{address}/_stcore/stream",
            subprotocols=["streamlit"],
            additional_headers={"Cookie": self.cookie},
            max_size=None,
            open_timeout=10,
            ping_interval=None,
        )

    def _move(self) -> None:
        self.lost_at = time.perf_counter() if self.lost_at is None else self.lost_at
        self.addresses = [*self.addresses[1:], self.addresses[0]]
        self.moves += 1


async def _run(
    connection: ClientConnection,
    shown: Screen | None = None,
    click: str | None = None,
    typed: tuple[str, str] | None = None,
) -> Screen:
    """Let the page run, after a click on one of the buttons that it shows or words typed into a field, and read it.

    Raises:
        AWAY: the app does not answer.
    """
    message = BackMsg()
    message.rerun_script.SetInParent()
    if shown is not None and (click is not None or typed is not None):
        message.rerun_script.fragment_id = shown.fragment
        widget = message.rerun_script.widget_states.widgets.add()
        if click is not None:
            widget.id, widget.trigger_value = shown.buttons[click], True
        if typed is not None:
            widget.id, widget.string_value = typed
    await connection.send(message.SerializeToString())
    screen = Screen()
    async with asyncio.timeout(STEP_SECONDS):
        while True:
            received = ForwardMsg.FromString(await connection.recv())
            screen.read(received)
            if received.WhichOneof("type") == "script_finished":
                if received.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                    return screen
                screen = Screen(sentences=screen.sentences, tracebacks=screen.tracebacks)


def sign_in(address: str, token: str) -> str:
    """The cookie that a sign-in link gives.

    Raises:
        OSError: the app does not answer, or not with a cookie.
    """
    place = urlsplit(address)
    assert place.hostname is not None
    connection = HTTPConnection(place.hostname, place.port, timeout=20)
    try:
        connection.request("GET", f"/?token={token}")
        cookies = connection.getresponse().headers.get_all("Set-Cookie") or []
    finally:
        connection.close()
    for cookie in cookies:
        if cookie.startswith("copl_") and not cookie.startswith("copl_next"):
            return cookie.partition(";")[0]
    raise OSError("the link gave no cookie")
