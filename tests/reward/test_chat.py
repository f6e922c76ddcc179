"""Conversations as a chat model reads them."""

from __future__ import annotations

import pytest
from jinja2 import TemplateError

from copl_core.records import CoplError
from copl_core.reward.chat import chat_of, rendered
from copl_core.turns import Turn, text_of

PROMPT = text_of([Turn("system", "sea"), Turn("user", "wave"), Turn("assistant", "tide"), Turn("user", "sand")])


def turns_in(chat: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(one["role"], one["content"]) for one in chat]


def test_a_plain_prompt_is_one_question_and_a_conversation_its_turns():
    assert turns_in(chat_of("wave", "tide")) == [("user", "wave"), ("assistant", "tide")]
    turns = [("system", "sea"), ("user", "wave"), ("assistant", "tide"), ("user", "sand")]
    assert turns_in(chat_of(PROMPT)) == turns
    assert turns_in(chat_of(PROMPT, "rock")) == [*turns, ("assistant", "rock")]


def test_turns_of_one_role_that_follow_each_other_are_joined():
    answer = text_of([Turn("assistant", "tide"), Turn("user", "sand"), Turn("assistant", "rock")])
    prompt = text_of([Turn("user", "wave"), Turn("user", "sand")])
    assert turns_in(chat_of(prompt, answer)) == [
        ("user", "wave\n\nsand"), ("assistant", "tide"), ("user", "sand"), ("assistant", "rock")
    ]  # fmt: skip
    assert turns_in(chat_of(text_of([Turn("tool", "a"), Turn("user", "b")]))) == [("user", "a\n\nb")]


class WithoutSystem:
    """A tokenizer whose template knows no system texts, as those of some models do."""

    def apply_chat_template(self, chat: list[dict[str, str]], **_: object) -> str:
        if any(one["role"] == "system" for one in chat):
            raise TemplateError("System role not supported")
        return " | ".join(f"{one['role']}: {one['content']}" for one in chat)


def test_a_template_without_system_texts_gets_them_in_the_first_question():
    found = rendered(WithoutSystem(), chat_of(PROMPT, "rock"))
    assert found == "user: sea\n\nwave | assistant: tide | user: sand | assistant: rock"
    with pytest.raises(CoplError, match="does not take these turns .System role not supported.; change"):
        rendered(WithoutSystem(), [{"role": "system", "content": "sea"}])
