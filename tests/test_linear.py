"""No pattern or loop over text takes quadratic time, whatever the text is."""

import contextlib
import importlib
import re
import string

import pytest

from common.files import ROOT
from corpus.clean import clean_text
from corpus.cleaning.privacy import hide_personal
from corpus.language import identify
from corpus.quality import signals
from corpus.reading.web import decode_page
from corpus.reading.wikipedia import plain_text
from language.base import load_language
from tasks.base import fold
from tasks.cells import SkipRecord, spelled
from tasks.metrics import normalise_language, normalise_official
from tasks.next_sentence import split_sentences
from tests.timing import growth, seconds

SHORT, LONG = 10_000, 100_000  # characters
# CPU seconds on SHORT characters. A quadratic function is slower: 10^8 steps take a tenth of a second, and copying as many
# bytes takes ten milliseconds.
QUICK = 0.003
# Each is repeated to its length, alone and after an opening mark that is never closed.
UNITS = [
    *"aA10 \t\n-'=_([{|<&,;/.əİа",
    "\u200d",
    "\u00ad",
    "\u0301",
    "\u0307",
    "\ufffd",
    " a",
    "a-",
    "a\n",
    ", ",
    "a.",
    "1 ",
    "()",
    "[[",
    "{{",
    "&#",
    "<a",
    "aа",
]
OPENINGS = [
    "",
    "[//",
    "[mailto:",
    "(",
    "<meta ",
    "charset=",
    "&#",
    "&#x",
    "&",
    "__",
    "<",
    "{{formatnum:",
    "{{q|",
    "[[a|",
    "ab-\n",
]
ROOMS = ("language", "corpus", "tokenization", "data", "tasks", "evaluation")
FILES = [ROOT / "common" / "tables.py", ROOT / "common" / "task_files.py", ROOT / "common" / "files.py"]
FILES += [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")) if path.stem != "__init__"]
AZ = load_language("azerbaijani")


def list_in_a_cell(text):
    with contextlib.suppress(SkipRecord):
        spelled(f"[{text}")


FUNCTIONS = {
    "plain_text": plain_text,
    "decode_page": lambda text: decode_page(text.encode()),
    "clean_text": lambda text: clean_text(text, AZ),
    "hide_personal": lambda text: hide_personal(text, AZ),
    "signals": lambda text: signals(text, AZ),
    "identify": lambda text: identify(text, AZ),
    "split_sentences": lambda text: split_sentences(text, AZ),
    "normalise_official": normalise_official,
    "normalise_language": lambda text: normalise_language(AZ, text),
    "fold": fold,
    "list_in_a_cell": list_in_a_cell,
}


def patterns():
    """Every different compiled text pattern of the modules that read text, by its place."""
    seen = set()
    for path in FILES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for key, value in vars(importlib.import_module(name)).items():
            if isinstance(value, re.Pattern) and (value.pattern, value.flags) not in seen:
                seen.add((value.pattern, value.flags))
                yield f"{name}:{key}", value


def own_units(pattern):
    """Units of the signs in a pattern itself: alone, two by two, after a letter and before a digit."""
    source = pattern.pattern.decode("latin-1") if isinstance(pattern.pattern, bytes) else pattern.pattern
    signs = [sign for sign in dict.fromkeys(source) if sign in string.punctuation][:8]
    pairs = [first + second for first in signs for second in signs if first != second]
    return [*signs, *pairs, *(f"a{sign}" for sign in signs), *(f"{sign}1" for sign in signs)]


def check(work, short=SHORT, long=LONG, quick=QUICK, texts=None):
    """Raise AssertionError, naming the text, if the time of `work` grows faster than its text (tests/timing.py)."""
    for opening, unit in texts or [(opening, unit) for opening in OPENINGS for unit in UNITS]:

        def make(size, opening=opening, unit=unit):
            return opening + unit * (size // len(unit))

        if seconds(work, make(short)) < quick:
            continue
        first, taken, linear = growth(work, make, short, long)
        if first < quick:  # its first look met a slow moment
            continue
        assert linear, f"{opening!r} + {unit!r} repeated: {first:.4f} s, then {taken:.4f} s"


def searching(pattern):
    as_bytes = isinstance(pattern.pattern, bytes)

    def work(text):
        for _ in pattern.finditer(text.encode() if as_bytes else text):
            pass

    return work


@pytest.mark.parametrize(("place", "pattern"), list(patterns()), ids=[place for place, _ in patterns()])
def test_a_pattern_is_linear(place, pattern):
    """On 2,000 characters, where a square is 4 * 10^6 steps: what takes longer than QUICK is compared with 20,000."""
    texts = [("", unit) for unit in [*UNITS, *own_units(pattern)]] + [
        (opening, unit) for opening in OPENINGS for unit in "aə1 ("
    ]
    check(searching(pattern), 2000, 20_000, texts=texts)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "pattern"), list(patterns()), ids=[place for place, _ in patterns()])
def test_a_pattern_is_linear_at_length(place, pattern):
    check(searching(pattern))


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_over_text_is_linear(name):
    if name in ("plain_text", "decode_page"):
        check(FUNCTIONS[name])
    else:  # slower a character, so that a square shows earlier
        check(FUNCTIONS[name], 3000, 30_000, quick=0.01)


def test_the_check_detects_quadratic_time():
    square = re.compile(r"\[//[^\s\[\]]*([^\[\]\n]*)\]")  # two overlapping classes, a former pattern for external links
    with pytest.raises(AssertionError, match=r"'\[//' \+ 'a' repeated"):
        check(square.search, 300, 3000, quick=0)
