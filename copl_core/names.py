"""What a name looks like, so that nobody can be taken for somebody else.  Standard library only."""

from __future__ import annotations

from unicodedata import category, decimal, normalize

# Characters that show nothing although their category says letter, mark or symbol: fillers of Hangul, the blank of
# Braille, joiners and the selectors of variants (Unicode's Default_Ignorable_Code_Point, and U+2800).
_BLANK = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0x180B, 0x1810)}
_VARIANTS = {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
_EMOJI = "\ufe0e\ufe0f"  # after a symbol they choose between its black and its coloured picture
_UNSEEN = ("Cc", "Cs", "Co", "Cn")
# Letters of Cyrillic and Greek that look like Latin ones, in one of their two cases (after Unicode TS 39).
_CYRILLIC = "авекмнорстухіјѕԁԛԝһӏ", "abekmhopctyxijsdqwhl"
_GREEK = "αβεζηικμνορτυχ", "abezhikmnoptyx"
_LATIN = str.maketrans(_CYRILLIC[0] + _GREEK[0] + "ıɑɡǀ", _CYRILLIC[1] + _GREEK[1] + "iag|")
_ONES = "١۱"  # the digits 1 that are a plain stroke; every other digit 1 beyond ASCII has a shape of its own
# Digits that look like letters, and strokes that look alike; ``db.models.LOOK`` says the same in SQL
_COARSE = str.maketrans({"0": "o", "1": "l", "|": "l", "i": "l"})
# What a character may be read as, where it is more than itself; "|" is the plain stroke.
_READINGS = {"l": "l|", "I": "i|", "0": "0o", "1": "1l|"}


def has_unseen(name: str) -> bool:
    """Whether a character of a name shows nothing; joiners and marks of direction are the affair of ``values.visible``,
    which knows where a script needs them."""
    pairs = zip(" " + name, name, strict=False)
    return any(_is_unseen(one) and not (one in _EMOJI and category(before) == "So") for before, one in pairs)


def look(name: str) -> str:
    """What names that can be taken for one another have in common: letters of any alphabet, width and case as Latin
    ones, where they look like these, nothing of what is not seen, and one letter for all plain strokes (1, l, I) and
    rings (0, O).  ``alike`` decides between two names of one look."""
    return "".join(one.casefold().translate(_LATIN) for one in _seen(name)).translate(_COARSE)


def alike(one: str, other: str) -> bool:
    """Whether a name can be taken for another.

    A digit 0 or 1 of a longer word can be read as a letter (0wner, A1ice, Rater 1O), and a capital I as a small l.  A
    digit that stands alone is a number: Person 1 and Person I are two people.  A small i is a 1 only in the middle of a
    word (Al1ce): Max1 and Maxi differ at a glance.
    """
    readings = _readings(one), _readings(other)
    return len(readings[0]) == len(readings[1]) and all(a & b for a, b in zip(*readings, strict=True))


def _readings(name: str) -> list[set[str]]:
    seen = f" {_seen(name)} "
    return [
        reading
        for before, one, after in zip(seen, seen[1:], seen[2:], strict=False)
        for reading in _read(one, before, after)
    ]


def _read(one: str, before: str, after: str) -> list[set[str]]:
    folded = one.casefold().translate(_LATIN)
    shown = "I" if folded == "i" and one != one.casefold() else folded
    if shown in ("0", "1") and not (before.isalnum() or after.isalnum()):
        return [{shown}]
    if shown == "1" and before.isalnum() and after.isalnum():
        return [{*_READINGS["1"], "i"}]
    return [{*_READINGS.get(letter, letter)} for letter in shown]


def _seen(name: str) -> str:
    seen = "".join(one for one in name if category(one) != "Cf" and not _is_unseen(one))
    return "".join(_digit(one) for one in normalize("NFKC", seen))


def _digit(one: str) -> str:
    return "1" if one in _ONES else "0" if decimal(one, None) == 0 else one


def _is_unseen(one: str) -> bool:
    return category(one) in _UNSEEN or ord(one) in _BLANK or ord(one) in _VARIANTS
