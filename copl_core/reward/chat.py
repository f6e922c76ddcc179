"""A prompt and a response as the messages of a chat, and as the text that a model's chat template makes of them."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from copl_core.turns import Turn, turns_of

_SPOKEN = {"developer": "system", "tool": "user"}  # roles that few templates have, as the nearest one that all have


def chat_of(prompt: str, response: str | None = None) -> list[dict[str, str]]:
    """Messages of a prompt and, if there is one, its response; each of them may be the text of several turns.

    Turns of one role that follow each other are one message: many templates want roles that take turns.
    """
    turns = list(turns_of(prompt) or (Turn("user", prompt),))
    if response is not None:
        turns += turns_of(response) or (Turn("assistant", response),)
    spoken = [Turn(_SPOKEN.get(role, role), text) for role, text in turns]
    by_role = groupby(spoken, key=lambda turn: turn.role)
    return [{"role": role, "content": "\n\n".join(text for _, text in same)} for role, same in by_role]


def rendered(tokenizer: Any, chat: list[dict[str, str]], **how: Any) -> str:
    """The chat in the tokenizer's template; one that knows no system texts gets them in the first question."""
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(chat, tokenize=False, **how)
    except TemplateError:
        if chat[0]["role"] != "system" or len(chat) < 2:
            raise
        first = {"role": chat[1]["role"], "content": f"{chat[0]['content']}\n\n{chat[1]['content']}"}
        return tokenizer.apply_chat_template([first, *chat[2:]], tokenize=False, **how)
