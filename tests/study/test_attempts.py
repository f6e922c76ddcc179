"""How often one address may try to come in, and that nobody else waits for it."""

from __future__ import annotations

import pytest

from copl_core.records import CoplError
from copl_core.study import attempts


@pytest.fixture(autouse=True)
def none_yet(monkeypatch):
    now = [0.0]
    for limiter in (attempts._joins, attempts._failures):
        monkeypatch.setattr(limiter, "_clock", lambda: now[0])
    attempts.forget()
    yield now
    attempts.forget()


def test_a_class_behind_one_address_joins_at_once_and_a_flood_waits(none_yet):
    for _ in range(attempts.JOINS):
        attempts.count_join("203.0.113.9")
    with pytest.raises(CoplError, match=r"More than 300 people a minute .* you have not joined yet; try again in 1 s"):
        attempts.count_join("203.0.113.9")
    attempts.count_join("203.0.113.10")
    none_yet[0] += 1
    attempts.count_join("203.0.113.9")


def test_an_address_waits_after_sign_ins_that_failed(none_yet):
    for _ in range(attempts.FAILURES):
        assert not attempts.seconds_to_wait("203.0.113.9")
        attempts.count_failure("203.0.113.9")
    assert attempts.seconds_to_wait("203.0.113.9") == 2 and not attempts.seconds_to_wait("203.0.113.10")
    none_yet[0] += 2
    assert not attempts.seconds_to_wait("203.0.113.9")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:203.0.113.9", "203.0.113.9", True),
        ("fe80::1%eth0", "fe80::1", True),
        (None, "", True),
        ("a socket", "203.0.113.9", False),
    ],
)
def test_a_network_of_ipv6_counts_as_one_address(one, other, same):
    for _ in range(attempts.FAILURES):
        attempts.count_failure(one)
    assert bool(attempts.seconds_to_wait(other)) is same
