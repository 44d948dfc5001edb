"""The ways in which a sentence may be typed: variants on which the language detector is trained.

Azerbaijani without its special letters ("cox gozel"), with sh and ch, with w for ş, in the spelling of 1991, in Cyrillic,
with Cyrillic look-alikes; other languages in ASCII too, so that plain letters do not indicate Azerbaijani. Four languages
without labelled training sentences are derived by rules from a related one: Turkmen and Uzbek in Cyrillic, Uyghur in
Latin, and Gagauz, as far as rules can, from Turkish.
"""

import random
import re
from collections.abc import Iterator

from language.azerbaijani import LOOKALIKES, digraphs, e_typed, lower, spelled_1991, to_cyrillic, w_typed
from language.base import ascii_typed

_TWINS = {latin: letter for letter, latin in LOOKALIKES.items() if letter in "аесорхуіј"}
_APOSTROPHES = "‘’ʻʼ`'"

_TURKMEN = dict(zip("abçdeäfghijžklmnňoöprsştuüwyýz", "абчдеәфгхиҗжклмнңоөпрсштуүвыйз", strict=True))
_UZBEK_PAIRS = {"o'": "ў", "g'": "ғ", "sh": "ш", "ch": "ч", "ye": "е", "yo": "ё", "yu": "ю", "ya": "я"}
_UZBEK = dict(zip("abdefghijklmnopqrstuvxyz'", "абдефгҳижклмнопқрстувхйзъ", strict=True))
_UYGHUR = dict(zip("اەېىوۇۆۈۋبپتجخدرزسفقكگلمنھي", "aeéiouöüwbptjxdrzsfqkglmnhy", strict=True))
_UYGHUR |= {"چ": "ch", "ژ": "zh", "ش": "sh", "ڭ": "ng", "غ": "gh", "ئ": "", "،": ",", "؟": "?"}

# Sound laws and words that distinguish Gagauz from Turkish; each is applied to three words in four, as usage varies.
_GAGAUZ = [
    (re.compile(pattern), new)
    for pattern, new in (
        ("'", ""),
        (r"\bh(?=[aeıou])", ""),
        ("ğ(?=[aeıioöuü])", ""),
        ("([aeıioöuü])ğ", r"\1\1"),
        ("nl(?=[ae])", "nn"),
        (r"\bve\b", "hem"),
        (r"\bki\b", "ani"),
        (r"\biçin\b", "deyni"),
        (r"\bçünkü\b", "zerä"),
        (r"\bsonra", "sora"),
        (r"\bşimdi", "şindi"),
        (r"\bile\b", "ilä"),
        ("[ıu]yor", "êr"),
        ("[iü]yor", "er"),
        ("acak", "acek"),
        (r"me(?:k|ye)\b", "mää"),
        (r"ma(?:k|ya)\b", "maa"),
        (r"(?<=\w\w)e(?=[lmnrz]?\b)", "ä"),
        ("(?<=[ld])er(?=[id])", "är"),
    )
]


def looking_alike(text: str, rng: random.Random) -> str:
    """Replace three in ten of the letters that have a Cyrillic look-alike by it."""
    return "".join(_TWINS[letter] if letter in _TWINS and rng.random() < 0.3 else letter for letter in text)


def half_ascii(text: str, rng: random.Random) -> str:
    """Some words with their special letters, some without."""
    return " ".join(ascii_typed(word) if rng.random() < 0.5 else word for word in text.split(" "))


def pseudo_gagauz(text: str, rng: random.Random) -> str:
    """Turkish with Gagauz sound laws: onlar is onnar, doğru is dooru, evler is evlär, geliyor is geler."""
    text = lower(text)
    for pattern, new in _GAGAUZ:
        text = pattern.sub(lambda found, new=new: found.expand(new) if rng.random() < 0.75 else found.group(), text)
    return text


def turkmen_cyrillic(text: str) -> str:
    """Turkmen Latin to the Cyrillic of 1940-1993."""
    text = text.lower()
    for latin, letter in (("ýa", "я"), ("ýu", "ю"), ("ýo", "ё")):
        text = text.replace(latin, letter)
    return "".join(_TURKMEN.get(letter, letter) for letter in text)


def uzbek_cyrillic(text: str) -> str:
    """Uzbek Latin to Cyrillic."""
    text = text.lower()
    for mark in _APOSTROPHES:
        text = text.replace(mark, "'")
    text = re.sub(r"\be", "э", text)
    for latin, letter in _UZBEK_PAIRS.items():
        text = text.replace(latin, letter)
    return "".join(_UZBEK.get(letter, letter) for letter in text)


def uyghur_latin(text: str) -> str:
    """Uyghur Arabic to the Latin script of Uyghur (ULY)."""
    return "".join(_UYGHUR.get(letter, letter) for letter in text)


def spellings(label: str, script: str, text: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    """(label, text) for one labelled sentence: as it is, and in its other spellings."""
    yield label, text
    if (label, script) == ("az", "Latn"):
        for way in (ascii_typed, ascii_typed, e_typed, e_typed, digraphs, w_typed, spelled_1991, to_cyrillic):
            yield "az", way(text)
        yield "az", half_ascii(text, rng)
        yield "az", looking_alike(text, rng)
    elif (label, script) == ("tr", "Latn"):
        yield "tr", ascii_typed(text)
        yield "tr", half_ascii(text, rng)
        for _ in range(3):
            yield "gag", pseudo_gagauz(text, rng)
    elif (label, script) in (("tk", "Latn"), ("crh", "Latn"), ("gag", "Latn")):
        yield label, ascii_typed(text)
        if label == "tk":
            yield "tk", turkmen_cyrillic(text)
    elif (label, script) == ("uz", "Latn"):
        yield "uz", "".join(letter for letter in text if letter not in _APOSTROPHES)
        yield "uz", uzbek_cyrillic(text)
    elif (label, script) == ("ug", "Arab"):
        yield "ug", uyghur_latin(text)


def pieces(text: str, rng: random.Random) -> Iterator[str]:
    """The text and two extracts of one to three and of three to eight words, the length of comments."""
    yield text
    words = text.split()
    for length in (rng.randint(1, 3), rng.randint(3, 8)):
        begin = rng.randrange(max(1, len(words) - length + 1))
        yield " ".join(words[begin : begin + length])
