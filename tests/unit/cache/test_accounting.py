"""What values are taken to weigh."""

from __future__ import annotations

import sys

import msgspec
import pytest

from ratelimit_service.cache.accounting import MAX_WALKED_OBJECTS, allocated_bytes, estimate_bytes


class Slotted:
    """An object without a dict."""

    __slots__ = ("one", "two")

    def __init__(self, one: object, two: object) -> None:
        self.one = one
        self.two = two


class Plain:
    """An object with attributes."""

    def __init__(self, one: object) -> None:
        self.one = one


class Struct(msgspec.Struct):
    """A struct."""

    one: object


@pytest.mark.parametrize(
    ("size_bytes", "allocated"),
    [(0, 0), (1, 16), (16, 16), (17, 32), (512, 512), (513, 528), (600, 608), (600 + 9, 624), (131_072, 135_168)],
)
def test_sizes_are_rounded_as_the_allocators_round_them(size_bytes: int, allocated: int) -> None:
    """Small objects in steps of 16 B, larger ones with malloc's header, the largest in pages."""
    assert allocated_bytes(size_bytes) == allocated


@pytest.mark.parametrize("value", [None, True, False, 0, -5, 256, "", b"", (), int, len, sys])
def test_what_the_process_has_anyway_weighs_nothing(value: object) -> None:
    """Singletons, classes, functions and modules belong to nobody."""
    assert estimate_bytes(value) == 0


@pytest.mark.parametrize("value", [257, 1.5, b"x" * 100, "text", 2**100])
def test_a_flat_value_weighs_its_own_size(value: object) -> None:
    """Nothing else is behind it."""
    assert estimate_bytes(value) == allocated_bytes(sys.getsizeof(value))


@pytest.mark.parametrize(
    "shell", [lambda v: [v], lambda v: (v,), lambda v: {1: v}, Plain, Struct, lambda v: Slotted(v, 1)]
)
def test_what_a_value_refers_to_counts(shell: type[Plain]) -> None:
    """A container weighs what it holds more than an empty one does."""
    payload = b"x" * 1_000

    assert estimate_bytes(shell(payload)) - estimate_bytes(shell(None)) == estimate_bytes(payload)


def test_an_object_counts_once_within_a_value() -> None:
    """A list of the same string a thousand times has one string, and a value that contains itself has an end."""
    text = "x" * 1_000
    many: list[object] = [text] * 1_000
    many.append(many)

    assert estimate_bytes(many) == allocated_bytes(sys.getsizeof(many)) + estimate_bytes(text)


def test_a_value_of_very_many_objects_is_extrapolated() -> None:
    """The walk ends after 10,000 objects; the rest is taken to be like them."""
    value = [b"%09d" % number for number in range(3 * MAX_WALKED_OBJECTS)]
    exact = allocated_bytes(sys.getsizeof(value)) + len(value) * estimate_bytes(value[0])

    assert estimate_bytes(value) == pytest.approx(exact, rel=0.7)
    assert estimate_bytes(value) > len(value) * estimate_bytes(value[0])
