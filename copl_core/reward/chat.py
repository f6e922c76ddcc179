"""A prompt and a response as the messages of a chat, and as the text that a model's chat template makes of them."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from copl_core.records import CoplError
from copl_core.turns import Turn, turns_of

TEMPLATE_STEPS = 100_000  # turns of loops and calls for a question and its answer; templates of models take tens

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
    """The chat in the tokenizer's template; one that knows no system texts gets them in the first question.

    Raises:
        CoplError: the template does not take this chat.
    """
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(chat, tokenize=False, **how)
    except TemplateError as problem:
        if chat[0]["role"] != "system" or len(chat) < 2:
            reason = " ".join(str(problem).split()) or type(problem).__name__
            raise CoplError(
                f"The chat template of the model does not take these turns ({reason}); change their roles or choose "
                "another model."
            ) from problem
        first = {"role": chat[1]["role"], "content": f"{chat[0]['content']}\n\n{chat[1]['content']}"}
        return rendered(tokenizer, [first, *chat[2:]], **how)


def check_template(tokenizer: Any, steps: int = TEMPLATE_STEPS) -> None:
    """Render a question and its answer in the tokenizer's template, if it has one, with every step counted.

    A template is a program that came with the model: the sandbox keeps it from everything but the processor.  One that
    waits for a text of its choice before it loops is not found.

    Raises:
        CoplError: it takes more than so many turns of loops and calls.
        jinja2.TemplateError: it cannot be rendered.
    """
    if not tokenizer.chat_template:
        return
    from transformers.utils.chat_template_utils import _compile_jinja_template

    from copl_core.reward.counted_template import counted

    template = tokenizer.get_chat_template()
    environment = counted(_compile_jinja_template(template).environment, steps)
    environment.from_string(template).render(
        **tokenizer.special_tokens_map, messages=chat_of("a", "b"), tools=None, documents=None,
        add_generation_prompt=False,
    )  # fmt: skip


def pair_template(tokenizer: Any) -> str | None:
    """A chat template that reads messages as the pair (prompt, response) of an encoder, whose tokenizer has none.

    The last message is the response.  The prompt is the one question before it, or the text of its turns
    (``copl_core.turns``, without the backslashes there).  None: a text of its own cannot hold such a pair.
    """
    pair = tokenizer("a", "b", return_special_tokens_mask=True)
    tokens = zip(pair["special_tokens_mask"], tokenizer.convert_ids_to_tokens(pair["input_ids"]), strict=True)
    parts = ["".join(token for _, token in some) for _, some in groupby(tokens, key=lambda token: token[0])]
    if len(parts) != 5:
        return None
    begin, _, between, _, end = map(repr, parts)
    conversation = (
        "{% for turn in turns %}{{ '[' + turn.role + ']\\n' + turn.content }}"
        "{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
    )
    template = (
        f"{{{{ {begin} }}}}"
        "{% set turns = messages[:-1] %}{% if turns | length == 1 and turns[0].role == 'user' %}{{ turns[0].content }}"
        f"{{% else %}}{conversation}{{% endif %}}"
        f"{{{{ {between} + messages[-1].content + {end} }}}}"
    )
    text = tokenizer.apply_chat_template(chat_of("a", "b"), chat_template=template, tokenize=False)
    same = tokenizer(text, add_special_tokens=False)["input_ids"] == pair["input_ids"]
    return template if same else None
