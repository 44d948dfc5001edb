"""Time grows with the text and not with its square: ten times the characters cost at most fifteen times as much."""

from collections.abc import Callable

import pytest

from language.base import load_language, packs
from tests.timing import growth, seconds

SHORT, LONG = 10_000, 100_000  # characters
FLOOR = 0.02  # seconds: shorter times at LONG are noise
TEXTS: dict[str, Callable[[int], str]] = {
    "joiners": lambda n: "söz " + "\u200d" * n,
    "joiners of both kinds": lambda n: "\u200c\u200d" * (n // 2) + " söz",
    "marks": lambda n: "a" + "\u0301\u0316" * (n // 2),
    "dots above": lambda n: "\u0307" * n,
    "one word": lambda n: "a" * n,
    "a word after a hyphen break": lambda n: "ab-\nxy " + "a" * n,
    "a broken word": lambda n: "a" * (n // 2) + "-\n" + "b" * (n // 2),
    "Cyrillic": lambda n: "а" * n,
    "Cyrillic, then Latin": lambda n: "а" * n + "z",
    "seams": lambda n: "əA" * (n // 2),
    "a seam between long parts": lambda n: "ə" * (n // 2) + "A" + "ə" * (n // 2),
    "spaces": lambda n: "a" + " " * n + "b",
    "line ends": lambda n: "a" + " \n" * (n // 2) + "b",
    "lone letters": lambda n: "m ə k " * (n // 6),
}


def functions() -> dict[str, Callable[[str], object]]:
    found: dict[str, Callable[[str], object]] = {}
    for name in packs():
        pack = load_language(name)
        found |= {f"{name} {rule}": repair for rule, repair in pack.space_repairs}
        found |= {f"{name} {what}": getattr(pack, what) for what in ("normalise", "fold_key", "lower", "transliterate")}
    return found


@pytest.mark.parametrize("name", list(functions()))
def test_time_grows_with_the_text(name):
    function = functions()[name]
    function("söz ab-\nxy a\u0301\u0301")  # tables and patterns are made at the first call
    for kind, make in TEXTS.items():
        if seconds(function, make(LONG)) > FLOOR:
            short, long, linear = growth(function, make, SHORT, LONG)
            assert linear, f"{name} on {kind}: {short:.4f} s, then {long:.4f} s"
