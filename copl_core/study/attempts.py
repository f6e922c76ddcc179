"""How often one address may try to come in: joins, and sign-ins that fail.

Both are counted in the memory of one process, for each address from which people come.  A class behind one router has
one address, so the limits are those of a class; an owner of an IPv6 network has many, so its first 64 bits count.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from copl_core.limits import RateLimiter
from copl_core.records import CoplError

JOINS, FAILURES = 300, 30  # a minute and an address
_joins, _failures = RateLimiter(), RateLimiter()


def count_join(address: str | None) -> None:
    """Count an attempt to join.

    Args:
        address: of the visitor, as the server knows it; None: of this machine.

    Raises:
        CoplError: there have been too many from this address; this one has to wait.
    """
    seconds = _joins.take(_network(address), JOINS)
    if seconds:
        raise CoplError(
            f"More than {JOINS} people a minute join from your network, so you have not joined yet; try again in "
            f"{seconds} s."
        )


def count_failure(address: str | None) -> None:
    """Count a sign-in that failed."""
    _failures.take(_network(address), FAILURES)


def seconds_to_wait(address: str | None) -> int:
    """The seconds until a sign-in from an address is looked at again; 0: it is looked at now."""
    return _failures.wait(_network(address), FAILURES)


def too_many(seconds: int) -> str:
    """The sentence for who has to wait."""
    return (
        f"More than {FAILURES} sign-ins a minute from your network have failed, so this one was not looked at and your "
        f"link stays as it is; try again in {seconds} s."
    )


def forget() -> None:
    """Forget all attempts, as a new process does."""
    _joins.clear()
    _failures.clear()


def _network(address: str | None) -> str:
    try:
        found = ip_address((address or "").partition("%")[0])
    except ValueError:  # of a Unix socket, say
        return address or ""
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or int(found) >> 64)
    return str(found)
