"""Conversations as text: the turns that were written are the turns that are read."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from copl_core.turns import ROLES, Turn, is_conversation, last_part, messages, text_of, title_of, turns_of, words_of

words = st.text(st.sampled_from("a\n\\[] userassistant\r"), max_size=12) | st.text(max_size=8)
tricky = st.sampled_from(
    ["", "\n", "[user]", "\\[user]", "[user]\n", "a\n\n[assistant]\nb", "\n\n[system]", "[tool]\n\n"]
)
conversations = st.lists(st.builds(Turn, st.sampled_from(ROLES), words | tricky), min_size=1, max_size=4)


@given(conversations)
@example([Turn("user", "[user]\nHi")])
@example([Turn("user", "a\n"), Turn("assistant", ""), Turn("user", "")])
def test_turns_come_back_from_their_text(turns):
    text = text_of(turns)
    alone = len(turns) == 1 and turns[0].role == "user" and text == turns[0].text
    assert alone or turns_of(text) == tuple(turns)
    assert messages(text) == [{"role": turn.role, "content": turn.text} for turn in turns]


@given(conversations, conversations)
def test_different_conversations_have_different_texts(one, other):
    assert (text_of(one) == text_of(other)) == (one == other)


@pytest.mark.parametrize("text", ["", "Hello", "User: Hello\n\nAssistant: Hi", "[1] a footnote", "see\n\n[user]\nthis"])
def test_other_texts_are_no_conversation(text):
    assert turns_of(text) == ()
    assert text_of([Turn("user", text)]) == text
    assert messages(text, "assistant") == [{"role": "assistant", "content": text}]


def test_a_system_text_and_a_history_make_another_prompt():
    question = Turn("user", "Name a bird")
    brief, warm = (text_of([Turn("system", how), question]) for how in ("Be brief.", "Be warm."))
    later = text_of([Turn("user", "Hello"), Turn("assistant", "Hi"), question])
    assert len({brief, warm, later, text_of([question])}) == 4


def test_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match="'narrator' is none of"):
        text_of([Turn("narrator", "Once")])


@given(conversations, st.integers(0, 40))
def test_the_last_part_of_a_conversation_is_its_end(turns, most):
    text = text_of(turns)
    if is_conversation(text):
        kept = turns_of(last_part(text, most)) or (Turn("user", last_part(text, most)),)
        assert len(kept) <= len(turns) and turns[-1].text.endswith(kept[-1].text)
        assert [turn.role for turn in kept[1:]] == [turn.role for turn in turns[len(turns) - len(kept) + 1 :]]
        assert sum(len(turn.text) for turn in kept) <= max(most, 0) or len(text) <= most


def test_a_plain_text_is_cut_at_its_end_and_a_conversation_is_named_by_its_last_question():
    assert last_part("abcdef", 3) == "abc"
    both = text_of(
        [Turn("user", "Hello"), Turn("assistant", "Hi"), Turn("user", "Name a bird"), Turn("assistant", "Tit")]
    )
    assert (title_of("Hello"), title_of(both)) == ("Hello", "… Name a bird")
    assert (words_of("Hello"), words_of(both)) == ("Hello", "Hello\nHi\nName a bird\nTit")
