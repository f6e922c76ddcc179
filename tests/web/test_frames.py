"""What reaches the app of what a browser sends over its websocket."""

from __future__ import annotations

import asyncio

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg

from web.frames import Frames


def through(message: dict) -> tuple[list[dict], list[dict]]:
    """(what the app receives, what the browser is sent)."""
    received, sent = [], []

    async def app(scope, receive, send) -> None:
        received.append(await receive())

    async def receive() -> dict:
        return message

    async def send(answer: dict) -> None:
        sent.append(answer)

    asyncio.run(Frames(app)({"type": "websocket"}, receive, send))
    return received, sent


def click(*ids: str) -> BackMsg:
    message = BackMsg()
    message.rerun_script.query_string = "pair=1"
    for one in ids:
        message.rerun_script.widget_states.widgets.add(id=one, trigger_value=True)
    return message


def test_a_message_of_the_app_passes_as_it_is():
    content = click("$$ID-1-a", "$$STREAMLIT_INTERNAL_KEY_x").SerializeToString()
    assert through({"type": "websocket.receive", "bytes": content}) == (
        [{"type": "websocket.receive", "bytes": content}],
        [],
    )
    assert through({"type": "websocket.connect"}) == ([{"type": "websocket.connect"}], [])


def test_a_widget_whose_id_is_none_of_the_app_is_left_out():
    ((received,), sent) = through(
        {"type": "websocket.receive", "bytes": click("1e9", "$$I\x04-1-a", "$$ID-1-a").SerializeToString()}
    )
    assert BackMsg.FromString(received["bytes"]) == click("$$ID-1-a") and sent == []


def test_bytes_that_are_no_message_end_the_connection():
    assert through({"type": "websocket.receive", "bytes": b"\xff\xff"}) == (
        [{"type": "websocket.disconnect", "code": 1002}],
        [{"type": "websocket.close", "code": 1002}],
    )


@pytest.mark.parametrize(
    ("sent", "passes"), [('{"rows": []}', True), ("null", True), ("{", False), ("7", False), ("[" * 100_000, False)]
)
def test_a_value_that_is_no_json_is_left_out(sent, passes):
    message = click("$$ID-1-a")
    message.rerun_script.widget_states.widgets.add(id="$$ID-2-b", json_value=sent)
    ((received,), answers) = through({"type": "websocket.receive", "bytes": message.SerializeToString()})
    assert BackMsg.FromString(received["bytes"]) == (message if passes else click("$$ID-1-a")) and answers == []
