"""The secret that a request carries in its header."""

from __future__ import annotations

import binascii
from base64 import b64decode


def secret_of(header: str) -> str:
    """The secret of an authorization header, of the basic scheme its password; empty where there is none."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
