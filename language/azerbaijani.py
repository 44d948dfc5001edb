"""Azerbaijani: alphabet, casing, look-alike letters, Cyrillic map, stop words and a key that is blind to spelling.

Standard library only. The text rules repair how a text was typed or stored and never how it was spelled: "cox gozel"
stays "cox gozel". Spelling is folded away only in `fold_key`, which serves matching and never reaches a model.
"""

import re
import unicodedata

ALPHABET = "abcçdeəfgğhxıijkqlmnoöprsştuüvyz"  # 32 letters of the alphabet of 1991 (with ə since 1992), in its order
ALPHABET_UPPER = "ABCÇDEƏFGĞHXIİJKQLMNOÖPRSŞTUÜVYZ"
SPECIAL_LETTERS = "əğıöşüç"  # the ones that an English keyboard lacks
DOT_ABOVE = "\u0307"

# Frequent words that carry little meaning, in standard spelling.
_STOP_WORDS = """və ilə bir bu o da də ki üçün olan kimi daha çox sonra isə görə onun hər amma lakin ancaq yəni əgər həm
həmin heç nə necə niyə hansı kim mən sən biz siz onlar mənim sənin bizim sizin onların öz özü var yox deyil idi imiş
olur olub oldu olar edir edib etmək olmaq qədər artıq indi belə elə bütün hamı haqqında tərəfindən üzrə arasında
yalnız ya yaxud çünki başqa digər bəzi hətta əsas bunu buna bundan ona onu ondan sizə mənə sənə bizə"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

# A full stop after one of these ends no sentence: lower case, without the stop; none is a word that may end one.
_ABBREVIATIONS = """s prof dos akad dr müəl h c cnb böy kiç məs bax təqr təxm tex müh küç pr məh r-n ray şəh qəs vil
resp səh cild nəşr tərc müəll mln mlrd kq km sm mm ha qəp tel faks əd ədəb fəls bot zool coğr e.ə
b.e b.e.ə m.ö m.s i.e a.g d.ə və.s və.b v.s st nr vb ks nəf"""
ABBREVIATIONS = frozenset(_ABBREVIATIONS.split())
YEAR = re.compile(r"\d+(?:[-–](?:cı|ci|cu|cü|ıncı|inci|uncu|üncü))?|[IVXLC]+")  # "1918-ci", "XX", before one of
PERIOD_WORDS = frozenset(["il", "ildə", "illər", "əsr", "əsrlər", "yy", "ə"])
MONTHS = tuple(
    ["yanvar", "fevral", "mart", "aprel", "may", "iyun", "iyul", "avqust", "sentyabr", "oktyabr", "noyabr", "dekabr"]
)

# Azerbaijani Cyrillic of 1958-1991, then letters of the earlier alphabet and of Russian loans.
CYRILLIC = {
    **dict(zip("абвгғдеәжзиыјкҝлмноөпрстуүфхһчҹш", "abvqğdeəjziıykglmnoöprstuüfxhçcş", strict=True)),
    **{"й": "y", "я": "ya", "ю": "yu", "ё": "yo", "э": "e", "ц": "s", "щ": "ş", "ь": "", "ъ": ""},
}

# Latin letters typed for Cyrillic ones inside a Cyrillic word, in Azerbaijani Latin.
_TYPED_LATIN = dict(zip("jcpyBCHPXYJ", "ysruVSNRXUY", strict=True))

# Cyrillic letters that look like a Latin one. The repair touches only words that hold Latin letters as well.
LOOKALIKES = {
    **dict(zip("аесорхуіјѕһәкԛԝ", "aecopxyijshəkqw", strict=True)),
    **dict(zip("АВЕІЈКМНОРСТХУЅҺӘԚԜ", "ABEIJKMHOPCTXYSHƏQW", strict=True)),
}

_CYRILLIC_LETTER = re.compile(r"[\u0400-\u052f]")
_LATIN_LETTER = re.compile(r"[A-Za-z\u00c0-\u024f\u0259\u1e00-\u1eff]")
_WORD = re.compile(r"[^\W\d_]+")
# A whole word with a Cyrillic letter in it; the look-behind keeps a very long word from being tried at every letter.
_CYRILLIC_WORD = re.compile(r"(?<![^\W\d_])[^\W\d_]*[\u0400-\u052f][^\W\d_]*")
_LONE_SCHWA = re.compile(r"(?<![^\W\d_])[әӘ](?![^\W\d_])")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_KEY_WORD = re.compile(r"[^\W_]+")

# Text of these characters alone, without doubled spaces or spaces at line ends, needs no rule: one scan and done.
_SUSPECT = re.compile(rf"[^\n -~{SPECIAL_LETTERS}ƏĞİÖŞÜÇ«»–…№§°²³₼]|  |\n | \n|`|\n\n")
_DROPPED = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ufff9-\ufffb]"
)
# Joiners belong to emoji and to Arabic script; beside Latin and Cyrillic letters they are dirt.
_EUROPEAN = r"[A-Za-z\u00c0-\u024f\u0259\u0400-\u052f]"
_JOINER = re.compile(rf"(?<={_EUROPEAN})[\u200c\u200d]+|[\u200c\u200d]+(?={_EUROPEAN})")
_UNSEEN = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
_LINE_END = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_ODD_SPACE = re.compile(r"[\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_SPACES = re.compile(r" {2,}")
_SPACE_AT_END = re.compile(r" +\n *|\n +")
_BLANK_LINES = re.compile(r"\n{3,}")

_SCHWA = {"ǝ": "ə", "Ǝ": "Ə"}  # turned e, its capital: same look, other code points
_CEDILLA = {"ș": "ş", "Ș": "Ş", "ț": "ţ", "Ț": "Ţ"}  # comma below: the Romanian letters
_DOTTED = re.compile(rf"[iı]{DOT_ABOVE}+|(?<=İ){DOT_ABOVE}+")  # what str.lower leaves of İ
_APOSTROPHE = {"’": "'", "‘": "'", "ʼ": "'", "ʻ": "'", "‛": "'", "`": "'", "´": "'", "′": "'"}
_QUOTE = {"“": '"', "”": '"', "„": '"', "‟": '"', "″": '"'}
_DASH = {"‐": "-", "‑": "-", "−": "-", "‒": "–", "—": "–", "―": "–"}
_TABLES = {"schwa": _SCHWA, "cedilla": _CEDILLA, "apostrophe": _APOSTROPHE, "quote": _QUOTE, "dash": _DASH}


def lower(text: str) -> str:
    """Lower case with İ to i and I to ı. `str.lower` makes i + U+0307, two code points, of İ and i of I."""
    return text.replace("I" + DOT_ABOVE, "i").replace("İ", "i").replace("I", "ı").lower()


def upper(text: str) -> str:
    """Upper case with i to İ and ı to I."""
    return text.replace("i" + DOT_ABOVE, "İ").replace("i", "İ").replace("ı", "I").upper()


def mend_lookalikes(text: str) -> tuple[str, int]:
    """Cyrillic letters that stand for Latin ones inside Latin words, mended; returns (text, letters changed).

    A word is mended when all its Cyrillic letters have a Latin twin and it holds a Latin letter too. Words in Cyrillic
    alone stay as they are, but for one case: a lone ә in a text with hardly any Cyrillic, which PDF extraction leaves
    ("v ә ya").
    """
    if not _CYRILLIC_LETTER.search(text):
        return text, 0
    changed = 0
    mostly_latin = False
    if _LONE_SCHWA.search(text):
        # Letters of words in Cyrillic alone, a lone ә not among them: mending leaves both sides as they are.
        words = [word for word in _WORD.findall(text) if word not in ("ә", "Ә")]
        cyrillic = sum(len(word) for word in words if not _LATIN_LETTER.search(word) and _CYRILLIC_LETTER.search(word))
        mostly_latin = sum(map(len, words)) > 10 * cyrillic

    def mend(match: re.Match) -> str:
        nonlocal changed
        word = match.group()
        strangers = _CYRILLIC_LETTER.findall(word)
        mixed = len(strangers) < len(word) and _LATIN_LETTER.search(word)
        if not (mixed or (mostly_latin and word in ("ә", "Ә"))):
            return word
        if any(letter not in LOOKALIKES for letter in strangers):
            return word
        changed += len(strangers)
        return "".join(LOOKALIKES.get(letter, letter) for letter in word)

    return _CYRILLIC_WORD.sub(mend, text), changed


def to_latin(text: str) -> str:
    """Azerbaijani Cyrillic to Latin, letter by letter, case kept (Я is Ya, or YA in capitals); the rest stays.

    Letters of the alphabet before 1958 and of Russian words are known too: й я ю э ё ц щ; ь and ъ fall away. In a word that is
    mostly Cyrillic a Latin letter is read as the Cyrillic one that it looks like.
    """
    if not _CYRILLIC_LETTER.search(text):
        return text

    def convert(match: re.Match) -> str:
        word = match.group()
        capitals = len(word) > 1 and word.isupper()
        letters = []
        typed = _TYPED_LATIN if 2 * len(_CYRILLIC_LETTER.findall(word)) > len(word) else {}
        for letter in word:
            latin = CYRILLIC.get(letter.lower())
            if latin is None:
                letters.append(typed.get(letter, letter))
            elif letter.isupper():
                letters.append(upper(latin) if capitals else upper(latin[:1]) + latin[1:])
            else:
                letters.append(latin)
        return "".join(letters)

    return _CYRILLIC_WORD.sub(convert, text)


def fold_key(text: str) -> str:
    """The words of `text` with case, script and diacritics folded away, joined by single spaces: for matching only.

    ŞƏKİ, şəki, sheki typed as seki, Шәки and şäki give one key. Digits stay (article 1 is not article 2), apostrophes
    inside words go, all other characters separate words.
    """
    return " ".join(_KEY_WORD.findall(_folded(text)))


def fold_lines(text: str) -> tuple[str, list[str]]:
    """The fold key of `text` and those of its lines."""
    if _CYRILLIC_LETTER.search(text):  # look-alikes are read by the letters around them: the whole and a line may differ
        return fold_key(text), [fold_key(line) for line in text.split("\n")]
    lines = [" ".join(_KEY_WORD.findall(line)) for line in _folded(text).split("\n")]
    return " ".join(filter(None, lines)), lines


def _folded(text: str) -> str:
    """`text` with case, script and diacritics folded away."""
    text = text.replace("İ", "i").lower().replace("'", "").replace("’", "")
    if not text.isascii():
        if not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
        if _CYRILLIC_LETTER.search(text):
            text = mend_lookalikes(text)[0]
            if len(_LATIN_LETTER.findall(text)) > 10 * len(_CYRILLIC_LETTER.findall(text)):
                text = _CYRILLIC_WORD.sub(_as_it_looks, text)  # "p." of a text in Latin, typed in Cyrillic
            text = to_latin(text)
        text = text.replace("ə", "e").replace("ı", "i").replace("ş", "s").replace("ü", "u").replace("ö", "o")
        text = text.replace("ç", "c").replace("ğ", "g").replace("ä", "e").replace("ǝ", "e")
        if not text.isascii():  # â, é, İ typed as I + dot: drop whatever marks are left
            text = _BEYOND_ASCII.sub(_without_marks, text)
    return text


def _as_it_looks(match: re.Match) -> str:
    word = match.group()
    return "".join(map(LOOKALIKES.get, word)) if all(letter in LOOKALIKES for letter in word) else word  # type: ignore[arg-type]


def _without_marks(match: re.Match) -> str:
    apart = unicodedata.normalize("NFKD", match.group()).lower()
    return "".join(letter for letter in apart if not unicodedata.combining(letter) and letter not in _UNSEEN)


STOP_KEYS = frozenset(fold_key(word) for word in STOP_WORDS)


def normalise(text: str) -> tuple[str, dict[str, int]]:
    """Repair how a text was typed or stored; returns (text, characters touched per rule that acted).

    Rules: nfc, line_end, dropped (controls, soft hyphen, zero width), space (other spaces, doubled spaces, spaces at
    line ends, more than one blank line), schwa (ǝ), cedilla (ș), dot_above (i + U+0307), apostrophe, quote, dash
    (« » and – are kept) and lookalike (Cyrillic letters in Latin words). Applying it twice changes nothing more.
    """
    if not _SUSPECT.search(text):
        stripped = text.strip(" \n")
        return stripped, {}
    counts: dict[str, int] = {}

    def note(rule: str, number: int) -> None:
        if number:
            counts[rule] = counts.get(rule, 0) + number

    if not text.isprintable():  # what these two look for is not, nor is \n
        text, number = _LINE_END.subn("\n", text)
        note("line_end", number)
        text, number = _DROPPED.subn("", text)
        note("dropped", number)
    if not unicodedata.is_normalized("NFC", text):
        composed = unicodedata.normalize("NFC", text)
        note("nfc", max(1, len(text) - len(composed)))
        text = composed
    if DOT_ABOVE in text:
        text, number = _DOTTED.subn(lambda match: "i" if match.group()[0] in "iı" else "", text)
        note("dot_above", number)
        text = unicodedata.normalize("NFC", text)  # a further mark may now meet its letter
    if "\u200c" in text or "\u200d" in text:
        text, number = _JOINER.subn("", text)
        note("dropped", number)
    for rule, table in _TABLES.items():
        for old, new in table.items():
            if old in text:
                note(rule, text.count(old))
                text = text.replace(old, new)
    text, number = mend_lookalikes(text)
    note("lookalike", number)
    text, number = _ODD_SPACE.subn(" ", text)
    note("space", number)
    for signs, pattern, new in (
        (("  ",), _SPACES, " "),
        ((" \n", "\n "), _SPACE_AT_END, "\n"),
        (("\n\n\n",), _BLANK_LINES, "\n\n"),
    ):
        if any(sign in text for sign in signs):
            before = len(text)
            text = pattern.sub(new, text)
            note("space", before - len(text))
    return text.strip(" \n"), counts


# The rules of `normalise` for those who run them in another engine: the tokenizers' normaliser, in tokenizer.json.
LINE_END, DROPPED, ODD_SPACE = _LINE_END.pattern, _DROPPED.pattern, _ODD_SPACE.pattern
LATIN_LETTERS, CYRILLIC_LETTERS = _LATIN_LETTER.pattern, _CYRILLIC_LETTER.pattern
UNIFIED = {"schwa": _SCHWA, "cedilla": _CEDILLA, "apostrophe": _APOSTROPHE, "quote": _QUOTE, "dash": _DASH}
