"""E-mail addresses in the one form in which they are stored and compared.

Only the letters A to Z lose their case.  Full case folding would give one person's address to another: it turns ß into
ss, and ſ and the Kelvin sign into s and k.  Canonically equivalent texts are one address (Unicode form NFC; RFC 6532,
section 3.1).
"""

from __future__ import annotations

import re
from string import ascii_lowercase, ascii_uppercase
from unicodedata import normalize

LONGEST = 320  # characters
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
_TO_ASCII = re.compile("([\u037e\u1fef\u212a])")  # NFC makes ; ` and K of these; they stay what they are


def stored_address(text: str) -> str:
    """An address as it is stored and compared; a stored one stays as it is."""
    return _composed(_composed(text.strip()).translate(_LOWER))


def is_address(text: str) -> bool:
    return 3 <= len(text) <= LONGEST and 0 < text.find("@") < len(text) - 1 and len(text.split()) == 1


def _composed(text: str) -> str:
    return "".join(one if _TO_ASCII.fullmatch(one) else normalize("NFC", one) for one in _TO_ASCII.split(text))
