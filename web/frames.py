"""What a browser may send over the app's websocket: messages of its protocol, about widgets that have an id of the app,
with values that can be read.

Streamlit logs a traceback for other bytes, and a page fails on a widget whose id is none of its own, or on a value that
is no JSON where JSON is sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState

_IDS = ("$$ID-", "$$STREAMLIT_INTERNAL_KEY")  # every id that streamlit gives begins so
_MOST_READ = 200_000_000  # bytes; streamlit closes the connection of a longer one
_PROTOCOL_ERROR = 1002


class Frames:
    """Middleware: ends a connection that sends something else, and leaves out unknown widgets and unreadable values."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return

        async def checked() -> Any:
            message = await receive()
            if message["type"] != "websocket.receive":
                return message
            content = _content(message.get("bytes"))
            if content is None:
                await send({"type": "websocket.close", "code": _PROTOCOL_ERROR})
                return {"type": "websocket.disconnect", "code": _PROTOCOL_ERROR}
            return {"type": "websocket.receive", "bytes": content}

        await self.app(scope, checked, send)


def _content(received: bytes | None) -> bytes | None:
    """A message as the app may read it; None: it is none."""
    if received is None or len(received) > _MOST_READ:
        return received
    try:
        message = BackMsg.FromString(received)
    except DecodeError:
        return None
    states = message.rerun_script.widget_states.widgets
    known = [one for one in states if one.id.startswith(_IDS) and _is_readable(one)]
    if len(known) == len(states):
        return received
    del states[:]
    states.extend(known)
    return message.SerializeToString()


def _is_readable(state: WidgetState) -> bool:
    """Whether a value that is sent as JSON is an object or a list, or nothing."""
    if state.WhichOneof("value") != "json_value":
        return True
    try:
        return isinstance(json.loads(state.json_value), dict | list | None)
    except (ValueError, RecursionError):
        return False
