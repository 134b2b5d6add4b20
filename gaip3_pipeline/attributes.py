"""The five attributes of a face: photographs are labelled with their values, and faces are drawn
for given values."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Attribute:
    """An attribute with values in 0..1: its name in files, columns and settings, and what 0 and 1
    mean.

    ``mirrored``: the mirror image of a picture has the value ``1 - value``. ``brightened``: a
    brightness copy changes the value as it changes a grey level of that brightness."""

    name: str
    meaning: str
    mirrored: bool = False
    brightened: bool = False


DECLARED = (
    Attribute("eyes", "0 closed … 1 open"),
    Attribute("mouth", "0 closed … 1 open"),
    Attribute("hair_color", "0 light … 1 dark"),
    Attribute("background", "0 dark … 1 bright", brightened=True),
    Attribute(
        "head",
        "0 turned to the picture's left, 0.5 not turned, 1 turned to its right",
        mirrored=True,
    ),
)
ATTRIBUTES = tuple(a.name for a in DECLARED)
MEANINGS = {a.name: a.meaning for a in DECLARED}
MIRRORED = tuple(a.name for a in DECLARED if a.mirrored)
BRIGHTENED = tuple(a.name for a in DECLARED if a.brightened)
