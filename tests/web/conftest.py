from __future__ import annotations

from collections.abc import Iterator

import pytest

from copl_core.study import attempts


@pytest.fixture(autouse=True)
def no_attempts_yet() -> Iterator[None]:
    """All tests come from one address."""
    attempts.forget()
    yield
    attempts.forget()
