"""All formats, in the order in which a file is tried: the most particular first."""

from __future__ import annotations

from copl_core.formats.alpaca_eval import AlpacaEval
from copl_core.formats.argilla import Argilla, ArgillaV1
from copl_core.formats.battles import Battles, KaggleLmsys, MtBench
from copl_core.formats.helpsteer import HelpSteer2, HelpSteerPreference
from copl_core.formats.interface import Format, Sample
from copl_core.formats.label_studio import LabelStudio
from copl_core.formats.lists import Lists, Ratings
from copl_core.formats.oasst import Oasst
from copl_core.formats.own import Own
from copl_core.formats.potato import Potato
from copl_core.formats.prism import Prism
from copl_core.formats.prodigy import Prodigy
from copl_core.formats.shp import Shp
from copl_core.formats.trl import HhRlhf, Trl, TrlImplicit
from copl_core.formats.ultrafeedback import UltraFeedback
from copl_core.formats.values import BadRecord
from copl_core.records import CoplError

FORMATS: tuple[Format, ...] = (
    *(LabelStudio(), Argilla(), ArgillaV1(), Prodigy(), Potato()),
    *(MtBench(), Battles(), KaggleLmsys(), AlpacaEval(), HelpSteerPreference(), HelpSteer2()),
    *(UltraFeedback(), Oasst(), Shp(), Prism()),
    *(HhRlhf(), TrlImplicit(), Trl(), Lists(), Own(), Ratings()),
)


def by_name(name: str) -> Format:
    """The format of that name.

    Raises:
        CoplError: there is none.
    """
    found = next((one for one in FORMATS if one.name == name), None)
    if found is None:
        names = ", ".join(one.name for one in FORMATS)
        raise CoplError(f"There is no format named {name!r}; choose one of {names}.")
    return found


def recognise(sample: Sample) -> Format | None:
    """The first format that a file which begins like this may be of; None: nobody knows it."""
    if any("label_key" in record for record in sample.records):
        return by_name("own")  # our own exports, whatever else they hold
    return next((one for one in FORMATS if _is_of(one, sample)), None)


def _is_of(one: Format, sample: Sample) -> bool:
    """Whether a format knows the file: records that it cannot read are not of it."""
    try:
        return one.recognise(sample)
    except BadRecord:
        return False
