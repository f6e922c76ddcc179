"""A sandbox for chat templates that ends: every turn of a loop and every call costs a step.

jinja2's own sandbox keeps a template from files and attributes, and one ``range`` from more than 100,000 numbers; loops
inside loops have no limit there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from copl_core.records import CoplError

_COUNTED = "_counted_turns"


class CountedSandbox(ImmutableSandboxedEnvironment):
    """Create it with ``counted``; one serves one rendering."""

    steps: int  # that are left

    def take(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise CoplError(
                "The chat template of the model does not end within the steps that a question and its answer may take: "
                "remove chat_template from the folder, or name another model."
            )

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.take(1)
        found = super().call(context, obj, *args, **kwargs)
        if isinstance(found, range):  # a loop over it may be one that is not seen, such as a recursive one
            self.take(len(found))
        return found

    def _parse(self, *source: Any) -> nodes.Template:
        template = super()._parse(*source)
        for loop in template.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, _COUNTED, [], [], None, None, lineno=loop.lineno)
        return template


def counted(environment: ImmutableSandboxedEnvironment, steps: int) -> CountedSandbox:
    """The same filters, tags and globals, with a limit."""
    found = object.__new__(CountedSandbox)
    found.__dict__ |= environment.__dict__
    found.steps, found.cache = steps, None
    found.filters = {**environment.filters, _COUNTED: _counted_turns}
    return found


@pass_context  # also keeps jinja2 from running it while it compiles
def _counted_turns(context: Context, items: Iterable) -> Iterator:
    sandbox = context.environment
    assert isinstance(sandbox, CountedSandbox)
    for item in items:
        sandbox.take(1)
        yield item
