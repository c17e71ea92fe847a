"""Held-out parts are disjoint by patient and do not move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_ray.data.splits import hold_out, position, set_aside, shared
from gan_ray.errors import DataError

patients = st.lists(st.integers(0, 50).map(str), max_size=40).map(lambda more: [*"abc", *more])


def split(groups: list[str], share: float) -> list[list[str]]:
    return [list(part) for part in hold_out(groups, str, share)]


def test_a_name_has_the_same_place_on_every_machine():
    # blake2b of "/patient7", 7 bytes, over 2**56: computed once with `b2sum -l 56`.
    assert position("patient7") == 0x3DF3078D34BDFD / 2**56
    assert position("patient7", "unlabeled") != 0x3DF3078D34BDFD / 2**56


def test_places_are_spread_evenly():
    places = [position(str(number)) for number in range(4000)]
    for quarter in range(4):
        count = sum(quarter / 4 <= place < (quarter + 1) / 4 for place in places)
        assert 900 < count < 1100


@given(patients, st.floats(0.01, 0.99))
def test_no_patient_is_in_two_parts_and_no_image_is_lost(groups: list[str], share: float):
    parts = split(groups, share)
    assert all(parts)
    assert sorted(name for part in parts for name in part) == sorted(groups)
    for first in range(3):
        for second in range(first):
            assert shared(parts[first], parts[second]) == []


@given(st.sets(st.integers(0, 10_000), min_size=60, max_size=80), st.integers(20_000, 30_000))
def test_new_images_move_no_other_image(numbers: set[int], added: int):
    before = [str(number) for number in sorted(numbers)]
    old, new = split(before, 0.4), split([*before, str(added)], 0.4)
    for before_part, after_part in zip(old, new, strict=True):
        assert [name for name in after_part if name != str(added)] == before_part


def test_a_whole_share_halves_and_trains_on_nothing():
    train, select, calibrate = split([str(number) for number in range(400)], 1.0)
    assert train == []
    assert 160 < len(select) < 240
    assert len(select) + len(calibrate) == 400


def test_a_handful_of_patients_still_fills_every_part():
    for share in (0.01, 0.5, 0.99):
        assert [len(part) for part in split(["a", "b", "c"], share)] == [1, 1, 1]


def test_too_few_patients_are_refused():
    with pytest.raises(DataError, match="8 normal images of 2 group"):
        hold_out(["a", "b"] * 4, str, 0.2)
    with pytest.raises(DataError, match="into 2 parts"):
        hold_out(["a"] * 4, str, 1.0)


def test_a_patient_is_set_aside_of_the_mix_where_it_is_held_out_of_the_normals():
    numbers = [str(number) for number in range(500)]
    train, select, calibrate = split(numbers, 0.3)
    rest, aside = set_aside(numbers, str, 0.3)
    assert rest == train
    assert sorted(aside) == sorted([*select, *calibrate])


def test_a_part_without_a_patient_is_refused():
    for share in (0.0, 1.0):
        with pytest.raises(DataError, match="both need one"):
            set_aside(["a", "b", "c"], str, share)
