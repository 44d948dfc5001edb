"""Kazakh in Cyrillic: alphabet, look-alike letters, words, sentence ends, suffixes, personal data, wiki names."""

import re

from language.base import MARKS, Language, PersonalRule, WikiNames, checks_iban
from language.cognates import KAZAKH_KYRGYZ

ALPHABET = "аәбвгғдеёжзийкқлмнңоөпрстуұүфхһцчшщъыіьэюя"  # 42 letters of the alphabet of 1940, in its order
ALPHABET_UPPER = ALPHABET.upper()

_STOP_WORDS = """және мен бен пен бір бұл ол да де та те үшін болған болып болады сияқты емес көп соң кейін сондай оның әр бірақ
алайда егер ешқандай не қалай неге қандай кім сен біз сіз олар менің сенің біздің сіздің олардың өз өзі бар жоқ еді екен
болды етті деп дейін енді қазір осы осылай барлық туралы арқылы арасында ғана немесе өйткені басқа кейбір тіпті мұны оған
оны одан сол мына ең тағы ма ме ба бе па пе"""

_ABBREVIATIONS = """т.б т.с.с т.с б.з.б б.з ж жж ғ ғғ проф акад доц қ обл ауд көш тел мыс қар бет млн млрд кг км см мм руб тг"""
MONTHS = ("қаңтар", "ақпан", "наурыз", "сәуір", "мамыр", "маусым", "шілде", "тамыз", "қыркүйек", "қазан", "қараша", "желтоқсан")

# ---------------------------------------------------------------- ways of typing it

_BARE = dict(zip("әғқңөұүһі", "агкноуухи", strict=True))
_RUSSIAN_KEYS = str.maketrans(_BARE | {letter.upper(): plain.upper() for letter, plain in _BARE.items()})
# The common Turkic alphabet (Turkic World Common Alphabet Commission, Baku, September 2024), by sound; the hard and soft
# signs are silent. Kazakhstan's own Latin alphabet of 2021 is not in use yet.
LATIN = {
    **dict(zip("аәбвгғдеёжзийкқлмнңоөпрстуұүфхһшыіэ", "aäbvgğdeojziykqlmnñoöprstuuüfxhşıie", strict=True)),
    **{"ц": "ts", "ч": "ç", "щ": "şş", "ю": "yu", "я": "ya", "ъ": "", "ь": ""},
}


def russian_keys(text: str) -> str:
    """Each letter that a Russian keyboard lacks replaced by the nearest one that it has: "қазақ тілі" becomes "казак тили"."""
    return text.translate(_RUSSIAN_KEYS)


def to_latin(text: str) -> str:
    """The common Turkic Latin alphabet, letter by letter with case."""
    written = []
    for letter in text:
        new = LATIN.get(letter.lower(), letter)
        # İ and I, as in every Turkic Latin alphabet
        big = {"i": "İ"}.get(new, new[:1].upper() + new[1:])
        written.append(new if letter.lower() not in LATIN or letter.islower() else big)
    return "".join(written)


# ---------------------------------------------------------------- personal data

_IBAN = re.compile(r"\bKZ\d{2} ?[A-Z0-9]{4}(?: ?[A-Z0-9]{4}){3}\b")
_GAP = r"[ .\u2013-]?"
_PHONE = re.compile(rf"(?<![\d+])(?:\+7|8){_GAP}\(?7\d{{2}}\)?{_GAP}\d{{3}}{_GAP}\d{{2}}{_GAP}\d{{2}}(?![\d.,/-]?\d)")
_PHONE_DIGITS = re.compile(r"7\d\d\)?[ .\u2013-]?\d\d\d[ .\u2013-]?\d\d")
_IIN = re.compile(r"(?<![\d.,-])\d{12}(?![\d.,-]?\d)")


def checks_iin(number: str) -> bool:
    """Whether twelve digits are an individual identification number: birthday and check digit (modulo 11) are valid."""
    digits = [int(digit) for digit in number]
    if not (1 <= int(number[2:4]) <= 12 and 1 <= int(number[4:6]) <= 31 and 0 < digits[6] <= 6):
        return False
    rest = sum(place * digit for place, digit in enumerate(digits[:11], start=1)) % 11
    if rest == 10:
        rest = sum(place * digit for place, digit in zip([*range(3, 12), 1, 2], digits, strict=False)) % 11
    return rest < 10 and rest == digits[11]


LANGUAGE = Language(
    name="kazakh",
    code="kk",
    code3="kaz",
    treebank="kk_ktb",
    scripts=("Cyrl",),
    alphabet=ALPHABET,
    alphabet_upper=ALPHABET_UPPER,
    special_letters=ALPHABET,  # an English keyboard has none of them
    plain_signs="«»–…№§°²³₸",
    unified=MARKS,
    # Latin letters inside Cyrillic words ("қaзaқ"); words with another Latin letter (USBға) and words in Latin alone stay.
    lookalikes=dict(zip("aeiocpxyəABEIKMHOPCTXYƏ", "аеіосрхуәАВЕІКМНОРСТХУӘ", strict=True)),
    folds=dict(zip("әғқңөұүһі", "агкноуухи", strict=True)),
    typings={"russian": russian_keys, "latin": to_latin},
    bare=russian_keys,
    other_script=to_latin,
    # GOST R 6431 with the Kazakh letters on the digits, from the key of 1
    keyboard=(" әіңғ  үұқөһ", "йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю"),
    suffix_marks="-'’",
    neighbour_words=KAZAKH_KYRGYZ,
    harmony={
        "A": dict(zip("аоұыяёюәеөүіэ", "ааааааа" + "ееееее", strict=True)),
        "I": dict(zip("аоұыяёюәеөүіэ", "ыыыыыыы" + "іііііі", strict=True)),
    },
    endings=("лAр", "дAр", "тAр", "дAн", "тAн", "дA", "тA", "нIң", "дIң", "тIң", "сIз"),
    exchanged={"дAн": "дA", "дA": "дAн", "тAн": "тA", "тA": "тAн", "нIң": "нI", "дIң": "дI", "тIң": "тI"},
    stop_words=frozenset(_STOP_WORDS.split()),
    # Endings of nouns in sequence: plural, person, case, the copula, ordinals; after suffix_folds.
    suffixes=(
        "[лдт]ар|[ндт]ын|[гк]а|[ндт]ы|н?[дт]а|н?[дт]ан|[мбп]ен|[ыи]м|[ыи]н|с?[ыи]|[дт]ык[ыи]|[ыи]нш[ыи]|л[ыи]к?|[дт]ык|с[ыи]з|на|а|н"
    ),
    suffix_folds=dict(zip("әеғқңіөұү", "аагкныоуу", strict=True)),
    softened=frozenset([("п", "б"), ("к", "г"), ("қ", "ғ")]),  # кітап, кітабы
    abbreviations=frozenset(_ABBREVIATIONS.split()),
    year=r"\d+(?:-?ш[ыі])?|[IVXLC]+",
    period_words=frozenset(["ж", "жж", "ғ", "жыл", "жылы", "ғасыр"]),
    months=MONTHS,
    personal=(
        PersonalRule("IBAN", _IBAN, 2, lambda text: "KZ" in text, 0, lambda match: checks_iban(match.group())),
        PersonalRule("ID", _IIN, 12, _IIN.search, 0, lambda match: checks_iin(match.group())),
        PersonalRule("PHONE", _PHONE, 11, _PHONE_DIGITS.search),
    ),
    wiki=WikiNames(
        files=("сурет", "файл"),
        categories=("санат",),
        namespaces=("үлгі", "модуль", "уикипедия", "портал", "қатысушы", "анықтама", "медиауики", "талқылау", "арнайы", "жоба"),
        thumbs=("нобай",),
        sides=("оңға", "солға", "ортаға"),
        sections=(
            "дереккөздер",
            "дереккөз",
            "сілтемелер",
            "тағы қараңыз",
            "ескертпелер",
            "әдебиет",
            "пайдаланылған әдебиет",
            "сыртқы сілтемелер",
            "галерея",
        ),
        redirects=("айдау", "перенаправление"),
    ),
    example="Алматы Қазақстанның {mask} қаласы.",
)
