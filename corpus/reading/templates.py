"""Inline templates of wikitext that a sentence needs: numbers, units, dates, words of other languages, text style.

All other templates (boxes, notes, navigation) have no running text and are dropped. The table below has MediaWiki's own
functions and the names of the English Wikipedia, which most wikis have copied; a language's own names are in its pack.
"""

import re
from functools import cache

from language.base import Language

LONGEST = 2000  # characters of a template with its contents; a longer one is a box, and copying it would be slow

_FIRST = """math mvar sub sup nobold nts num circa ca floruit nowrap nobr nowr s-nowrap small smaller big larger sc smallcaps
small-caps abbr tooltip em strong nihongo tlit quote cquote blockquote quotation poemquote"""
_LAST = "lang transl transliteration translit script"
_UNIT = "convert cvt unit units val"
_DATE = """date start-date end-date birth-date death-date birth-date-and-age death-date-and-age birth-date-and-given-age
film-date"""
_WAYS = {"first": _FIRST, "last": _LAST, "unit": _UNIT, "date": _DATE, "fraction": "frac fraction sfrac"}
_WAYS["money"] = "azn usd eur gbp rub try kzt us$ € $ £ ₼ ₽ ₺ ₸"
EQUALS = "\ufdd0"  # what {{=}} is until all templates are done: no argument is named by it
HOLE = "\ufdd1"  # where a template stood that is left out: between two digits it is a space
_SIGNS = {"ndash": "–", "–": "–", "mdash": "—", "—": "—", "snd": " – ", "spnd": " – ", "spaced-ndash": " – ", "nbsp": "\u00a0"}
_SIGNS |= {
    "·": " · ",
    "•": " • ",
    "dot": " · ",
    "'": "'",
    '"': '"',
    "°": "°",
    "minus": "−",
    "×": "×",
    "times": "×",
    "!": "|",
    "=": EQUALS,
}


@cache
def _ways(language: Language) -> dict[str, str]:
    """The treatment of each template by its name: English names and those of the language's pack."""
    own = language.wiki.templates
    return {name: way for way, names in _WAYS.items() for name in f"{names} {own.get(way, '')}".split()}


_DEGREES = ("°c", "°f")
# MediaWiki's functions of one text: {{formatnum:12500}}. Its R turns a number back; the digits are kept as they are written.
_FUNCTION = re.compile(r"\A\s*+(formatnum|lc|uc|lcfirst|ucfirst)\s*+:\s*+([^|]*)", re.IGNORECASE)
_LANGUAGE = re.compile(r"lang-[a-z-]{2,12}")  # {{lang-ru|Пример}}
_NAMED = re.compile(r"\A\s*+([\w-]{1,40})\s*+=\s*+(.*)", re.DOTALL)
_JOINED = {"to": "–", "-": "–", "–": "–", "and": ", ", "x": " × ", "×": " × ", "by": " × ", "+/-": " ± ", "±": " ± "}
_UNITS = {
    "km2": "km²",
    "m2": "m²",
    "cm2": "cm²",
    "mi2": "mi²",
    "sqmi": "sq mi",
    "sqkm": "km²",
    "m3": "m³",
    "km3": "km³",
    "cm3": "cm³",
    "C": "°C",
    "F": "°F",
    "kmh": "km/h",
    "km/h": "km/h",
}


def inline_text(inside: str, language: Language) -> str:
    """The visible text of {{inside}} for an inline template, else "". Links and templates in `inside` are already resolved."""
    if found := _FUNCTION.match(inside):
        change = {"uc": language.upper, "lc": language.lower}.get(found[1].lower(), str)
        return change(found[2].strip())
    name, *parts = inside.split("|")
    name = language.lower(name.strip()).replace("_", " ").replace(" ", "-")
    if name in _SIGNS:
        return _SIGNS[name]
    way = "first" if _LANGUAGE.fullmatch(name) else _ways(language).get(name)
    given, named = _arguments(parts, language) if way or name in _DEGREES else ([], {})
    if not given:
        return ""
    if way == "first":
        return given[0]
    if way == "last":
        return given[-1] if len(given) > 1 else ""
    if name in _DEGREES or way == "money":
        return f"{given[0]} {name.upper()}"
    if way == "fraction":
        return " ".join([*given[:-2], "/".join(given[-2:])])
    return _date(given, language) if way == "date" else _quantity(given, named)


def _arguments(parts: list[str], language: Language) -> tuple[list[str], dict[str, str]]:
    """The arguments of a template: positional ones in order (1=text is one too), and named ones."""
    given: list[str] = []
    named: dict[str, str] = {}
    for part in parts:
        if (found := _NAMED.fullmatch(part)) and not (found[1].isdecimal() and int(found[1]) == len(given) + 1):
            named[language.lower(found[1])] = found[2].strip()
        else:
            given.append((found[2] if found else part).strip())
    while given and not given[-1]:
        given.pop()
    return given, named


def _quantity(given: list[str], named: dict[str, str]) -> str:
    """ "93 km²" of 93|km2|sqmi, "2–4 km" of 2|to|4|km|mi, "5 kg" of 5|u=kg."""
    number, rest = given[0], given[1:]
    if len(rest) > 1 and rest[0] in _JOINED:
        number, rest = number + _JOINED[rest[0]] + rest[1], rest[2:]
    unit = next((named[key] for key in ("u", "ul") if named.get(key)), rest[0] if rest else "")
    return f"{number} {_UNITS.get(unit, unit)}".strip()


def _date(given: list[str], language: Language) -> str:
    """ "12 may 1918" of 12|may|1918 and of 1918|5|12; anything that is not a date is kept unchanged."""
    words = given[:3]
    if re.fullmatch(r"\d{4}", words[0]) and len(words) > 1:
        words.reverse()
    if len(words) > 1 and language.months and re.fullmatch(r"0?[1-9]|1[0-2]", words[-2]):
        words[-2] = language.months[int(words[-2]) - 1]
    return " ".join(word.lstrip("0") if len(word) == 2 and word.isdecimal() else word for word in words if word)
