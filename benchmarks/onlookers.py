"""People of a benchmark who only look at a page: when does which snapshot appear on it?"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.web_visitors import sign_in

SHOWN = re.compile(r"Snapshot (v\d+)")  # in the line below a figure


@dataclass
class Onlooker:
    """Somebody with an open page of the app over its websocket, who clicks nothing.

    Args:
        address: of the app, as ``http://host:port``.
        token: of a sign-in link.
        timers: whether it asks for parts of the page again as often as the page says, as a browser does.
    """

    address: str
    token: str
    timers: bool = True
    seen: dict[str, float] = field(default_factory=dict)  # version → seconds since the epoch
    runs: int = 0  # of the page or a part of it
    _asking: dict[str, asyncio.Task] = field(default_factory=dict)  # by part of the page

    async def look(self, is_over: Callable[[], bool]) -> None:
        """Keep the page open until it is over.

        Raises:
            OSError, WebSocketException: the app does not answer.
        """
        cookie = await asyncio.to_thread(sign_in, self.address, self.token)
        async with self._connection(cookie) as connection:
            await _ask(connection)
            while not is_over():
                try:
                    async with asyncio.timeout(0.2):
                        received = await connection.recv()
                except TimeoutError:
                    continue
                self._read(connection, ForwardMsg.FromString(received))
            self._stop(*self._asking)

    def _connection(self, cookie: str) -> connect:
        return connect(
            f"{self.address.replace('http://', 'ws://')}/_stcore/stream",
            subprotocols=["streamlit"],
            additional_headers={"Cookie": cookie},
            max_size=None,
            ping_interval=None,
        )

    def _read(self, connection: ClientConnection, message: ForwardMsg) -> None:
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self.runs += 1
            if not message.metadata.run.fragment_ids:
                self._stop(*self._asking)
        elif kind == "auto_rerun" and self.timers:
            part = message.auto_rerun.fragment_id
            self._stop(part)
            self._asking[part] = asyncio.create_task(_ask_again(connection, part, message.auto_rerun.interval))
        elif kind == "stop_auto_rerun":
            self._stop(*message.stop_auto_rerun.fragment_ids)
        elif kind == "delta" and message.delta.WhichOneof("type") == "new_element":
            for version in SHOWN.findall(message.delta.new_element.markdown.body):
                self.seen.setdefault(version, time.time())

    def _stop(self, *parts: str) -> None:
        for part in parts:
            if (asking := self._asking.pop(part, None)) is not None:
                asking.cancel()


async def _ask(connection: ClientConnection, part: str = "") -> None:
    message = BackMsg()
    message.rerun_script.SetInParent()
    message.rerun_script.fragment_id, message.rerun_script.is_auto_rerun = part, bool(part)
    await connection.send(message.SerializeToString())


async def _ask_again(connection: ClientConnection, part: str, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        await _ask(connection, part)
