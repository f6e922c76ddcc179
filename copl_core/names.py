"""What a name looks like, so that nobody can be taken for somebody else.  Standard library only."""

from __future__ import annotations

from unicodedata import category, normalize

# Characters that show nothing although their category says letter, mark or symbol: fillers of Hangul, the blank of
# Braille, joiners and the selectors of variants (Unicode's Default_Ignorable_Code_Point, and U+2800).
_BLANK = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0x180B, 0x1810)}
_VARIANTS = {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
_EMOJI = "\ufe0e\ufe0f"  # after a symbol they choose between its black and its coloured picture
_UNSEEN = ("Cc", "Cs", "Co", "Cn")
# Letters of Cyrillic and Greek that look like Latin ones, in one of their two cases (after Unicode TS 39).
_CYRILLIC = "авекмнорстухіјѕԁԛԝһӏ", "abekmhopctyxijsdqwhl"
_GREEK = "αβεζηικμνορτυχ", "abezhikmnoptyx"
_LATIN = str.maketrans(_CYRILLIC[0] + _GREEK[0] + "ıɑɡ", _CYRILLIC[1] + _GREEK[1] + "iag")


def has_unseen(name: str) -> bool:
    """Whether a character of a name shows nothing; joiners and marks of direction are the affair of ``values.visible``,
    which knows where a script needs them."""
    pairs = zip(" " + name, name, strict=False)
    return any(_is_unseen(one) and not (one in _EMOJI and category(before) == "So") for before, one in pairs)


def look(name: str) -> str:
    """What a name looks like: letters of any alphabet, width and case as Latin ones, where they look like these, and
    nothing of what is not seen."""
    seen = "".join(one for one in name if category(one) != "Cf" and not _is_unseen(one))
    plain = normalize("NFKC", seen).casefold()
    return plain.translate(_LATIN)


def _is_unseen(one: str) -> bool:
    return category(one) in _UNSEEN or ord(one) in _BLANK or ord(one) in _VARIANTS
