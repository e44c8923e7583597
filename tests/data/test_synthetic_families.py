from __future__ import annotations

from avslib.data.synthetic_families import CLASS_NAMES, FAMILIES
from avslib.media.palette import NUM_CLASSES


def test_avss_has_a_name_for_each_number() -> None:
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == NUM_CLASSES == 71
    assert CLASS_NAMES[0] == "background"
    assert [CLASS_NAMES.index(family.name) for family in FAMILIES] == list(range(1, 13))
    assert CLASS_NAMES[13] == "unused_13"
    assert CLASS_NAMES[70] == "unused_70"


def test_no_two_classes_share_a_look_or_a_sound() -> None:
    for trait in ("name", "shape", "colour", "timbre"):
        assert len({getattr(family, trait) for family in FAMILIES}) == len(FAMILIES), trait
