"""Languages that the detector distinguishes: codes in labelled data, English names, tests that prove a language."""

import re
from collections.abc import Callable

from language import azerbaijani, turkish

# Labels of the detector by the first part of codes like azj_Latn; all others are "other".
LABELS = {
    "azj": "az",
    "azb": "azb",
    "tur": "tr",
    "tuk": "tk",
    "uzn": "uz",
    "crh": "crh",
    "gag": "gag",
    "eng": "en",
    "rus": "ru",
    "kaz": "kk",
    "kir": "ky",
    "tat": "tt",
    "bak": "ba",
    "pes": "fa",
    "uig": "ug",
    "hye": "hy",
    "kat": "ka",
}
NAMES = {
    "az": "Azerbaijani",
    "azb": "Azerbaijani in Arabic script",
    "tr": "Turkish",
    "tk": "Turkmen",
    "uz": "Uzbek",
    "crh": "Crimean Tatar",
    "gag": "Gagauz",
    "en": "English",
    "ru": "Russian",
    "kk": "Kazakh",
    "ky": "Kyrgyz",
    "tt": "Tatar",
    "ba": "Bashkir",
    "fa": "Persian",
    "ug": "Uyghur",
    "hy": "Armenian",
    "ka": "Georgian",
    "el": "Greek",
    "he": "Hebrew",
    "th": "Thai",
    "ko": "Korean",
    "ja": "Japanese",
    "other": "any other language",
}
# Scripts that identify their language where the detector has no model for them.
BY_SCRIPT = {"Armn": "hy", "Geor": "ka", "Grek": "el", "Hebr": "he", "Thai": "th", "Hang": "ko", "Jpan": "ja"}
# Letters that the detector treats as one: case, the dot of i and a Cyrillic ә in Latin text are ignored.
SAME_LETTERS = {"I": "i", "İ": "i", "ı": "i", "ә": "ə", "Ә": "ə", "ǝ": "ə", "Ǝ": "ə"} | dict.fromkeys("’‘ʼʻ`", "'")
CENTRE = ("az", "Latn")  # label and script that the shipped detector requires

# Words and endings that Azerbaijani lacks; two of them in a text without ə, q and x prove Turkish.
_TURKISH = re.compile(r"\b(?:için|değil|gibi|kadar|şey|böyle|neden|şimdi|güzel|bence|\w+[ıiuü]yor(?:um|sun|lar)?)\b")
_SCHWA_Q_X = re.compile("[əƏqQxX]")


def _is_turkish(text: str) -> bool:
    return not _SCHWA_Q_X.search(text) and len(_TURKISH.findall(turkish.LANGUAGE.lower(text))) > 1


# Tests that prove a raw text to be in the language of its label; such texts train the detector on a source's style.
PROOFS: dict[str, Callable[[str], bool]] = {"az": azerbaijani.is_sure, "tr": _is_turkish}
