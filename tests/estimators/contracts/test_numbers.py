"""Numbers given by people: finite, in range, named."""

import pytest

from estimators.base import InputError
from estimators.contracts.numbers import LARGEST_SEED, number


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "abc", "", " ", "1,5", None, True, [1], {}, b"1", 1j])
def test_what_is_no_finite_number_is_refused_by_name(value: object) -> None:
    with pytest.raises(InputError, match=r"^--price takes a finite number, got "):
        number(value, "--price")


@pytest.mark.parametrize(
    ("value", "limits", "asked"),
    [
        (-1, {"least": 0}, "a number of at least 0"),
        (0, {"above": 0}, "a number above 0"),
        (1, {"above": 0, "below": 1}, "a number between 0 and 1"),
        (1.5, {"whole": True}, "a whole number"),
        ("1.5", {"whole": True}, "a whole number"),
        (70_000, {"least": 0, "most": 65_535, "whole": True}, "a whole number from 0 to 65535"),
        (2**64, {"least": 0, "most": LARGEST_SEED, "whole": True}, "a whole number from 0 to 4294967295"),
        ("9" * 10_000, {"least": 0}, "a number of at least 0"),
        ("9" * 10_000, {"least": 0, "whole": True}, "a whole number of at least 0"),
        (10**400, {"least": 0}, "a number of at least 0"),
        (3, {"most": 2}, "a number up to 2"),
    ],
)
def test_what_is_out_of_range_is_refused_by_its_range(value: object, limits: dict, asked: str) -> None:
    with pytest.raises(InputError) as caught:
        number(value, "--x", **limits)
    assert str(caught.value).startswith(f"--x takes {asked}, got ")
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(("value", "read"), [("2.5", 2.5), (3, 3.0), ("1e3", 1000.0), (-0.5, -0.5)])
def test_numbers_are_read(value: object, read: float) -> None:
    assert number(value, "--x") == read


def test_whole_numbers_stay_exact() -> None:
    read = number(2**60 + 1, "--x", whole=True)
    assert read == 2**60 + 1
    assert isinstance(read, int)
