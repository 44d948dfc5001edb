"""Azerbaijani: alphabet, casing, look-alike letters, Cyrillic map, words, suffixes, personal data, wiki names."""

import re
from pathlib import Path

from language.base import MARKS, Language, PersonalRule, WikiNames, ascii_typed, checks_iban
from language.cognates import AZERBAIJANI_TURKISH

ALPHABET = "abcçdeəfgğhxıijkqlmnoöprsştuüvyz"  # 32 letters of the alphabet of 1991 (with ə since 1992), in its order
ALPHABET_UPPER = "ABCÇDEƏFGĞHXIİJKQLMNOÖPRSŞTUÜVYZ"
SPECIAL_LETTERS = "əğıöşüç"  # letters that an English keyboard lacks
# Frequent words that carry little meaning, in standard spelling.
_STOP_WORDS = """və ilə bir bu o da də ki üçün olan kimi daha çox sonra isə görə onun hər amma lakin ancaq yəni əgər həm
həmin heç nə necə niyə hansı kim mən sən biz siz onlar mənim sənin bizim sizin onların öz özü var yox deyil idi imiş
olur olub oldu olar edir edib etmək olmaq qədər artıq indi belə elə bütün hamı haqqında tərəfindən üzrə arasında
yalnız ya yaxud çünki başqa digər bəzi hətta əsas bunu buna bundan ona onu ondan sizə mənə sənə bizə"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

# A full stop after one of these does not end a sentence: lower case, without the stop; none is a word that may end one.
_ABBREVIATIONS = """s prof dos akad dr müəl h c cnb böy kiç məs bax təqr təxm tex müh küç pr məh r-n ray şəh qəs vil
resp səh cild nəşr tərc müəll mln mlrd kq km sm mm ha qəp tel faks əd ədəb fəls bot zool coğr e.ə
b.e b.e.ə m.ö m.s i.e a.g d.ə və.s və.b v.s st nr vb ks nəf"""
ABBREVIATIONS = frozenset(_ABBREVIATIONS.split())
YEAR = r"\d+(?:[-–](?:cı|ci|cu|cü|ıncı|inci|uncu|üncü))?|[IVXLC]+"  # "1918-ci", "XX", before one of
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

# Cyrillic letters that look like a Latin one. The repair changes only words that contain Latin letters too.
LOOKALIKES = {
    **dict(zip("аесорхуіјѕһәкԛԝ", "aecopxyijshəkqw", strict=True)),
    **dict(zip("АВЕІЈКМНОРСТХУЅҺӘԚԜ", "ABEIJKMHOPCTXYSHƏQW", strict=True)),
}

SCHWA = {"ǝ": "ə", "Ǝ": "Ə"}  # turned e and its capital: same shape, other code points
CEDILLA = {"ș": "ş", "Ș": "Ş", "ț": "ţ", "Ț": "Ţ"}  # comma below: the Romanian letters
FOLDS = dict(zip("əışüöçğäǝ", "eisuocgee", strict=True))

# Stop words are searched in every way of typing them: standard, ASCII, ASCII in capitals (I for İ), Cyrillic.
_TO_CYRILLIC = str.maketrans({latin: letter for letter, latin in CYRILLIC.items() if len(latin) == 1 and letter not in "йэцщ"})
_TO_ASCII = str.maketrans("əğıöşüç", "egiosuc")
STOP_FORMS = {
    form: word
    for word in sorted(STOP_WORDS)
    for key in (word.translate(_TO_ASCII),)
    for form in (word, key, key.replace("i", "ı"), word.translate(_TO_CYRILLIC))
}
# FineWeb-2's list for azj_Latn: 22 words, case-sensitive.
_FINEWEB2 = "və ilə ildə bir bu azərbaycan olan üçün sonra də kimi il isə o görə da tərəfindən çox ki onun edir idi"

# Quality rules, see corpus.quality.
PRESETS = {
    # huggingface/fineweb-2, configs/azj_Latn.yml (Apache-2.0), and the values that its pipeline sets for every language,
    # verbatim and in its order: Gopher repetition, FineWeb quality, Gopher quality. It removed 75.4 % of the documents.
    # Its language score (0.3) belongs to another detector and is not here.
    "fineweb2": {
        "max_dup_line_fraction": 0.879,
        "max_top_2gram": 0.514,
        "max_top_3gram": 0.475,
        "max_top_4gram": 0.405,
        "max_dup_5gram": 0.300,
        "max_dup_6gram": 0.271,
        "max_dup_7gram": 0.252,
        "max_dup_8gram": 0.227,
        "max_dup_9gram": 0.202,
        "max_dup_10gram": 0.179,
        "min_line_punct_fraction": 0.188,
        "max_char_dup_ratio": 0.1,
        "max_newline_ratio": 0.179,
        "min_words": 50,
        "max_words": 100_000,
        "min_mean_word_length": 3,
        "max_mean_word_length": 13,
        "max_hash_ratio": 0.1,
        "max_ellipsis_ratio": 0.1,
        "max_bullet_fraction": 0.9,
        "max_ellipsis_line_fraction": 0.3,
        "min_alpha_word_fraction": 0.725,
        "min_stop_words_fineweb2": 2,
    },
    # From quantiles of five trusted sources of the real Azerbaijani set (594 news, 5,008 law articles, 89 chapters of a
    # technical book, 313 talks, 66 folktales), each measured separately, on texts of 50 words and more: every bound lies beyond
    # the .99 quantile of all five, so that no source loses more than 1 % to one rule. The number after each rule is the largest
    # .99 quantile (for min_: the smallest .01 quantile) among the five, and its source. News sets the repetition bounds: its
    # pages give the same text twice, once as a lead. Repetition rules skip texts under 50 words (poems, lists, comments).
    "tuned": {
        "max_dup_line_fraction": [0.55, 50],  # .43 news, .25 laws, others 0 to .02
        "max_char_dup_ratio": [0.60, 50],  # .54 news, others 0 to .03
        "max_top_2gram": [0.25, 50],  # .16 laws, .15 news, others .05
        "max_top_3gram": [0.30, 50],  # .18 news (.999 of laws .29)
        "max_top_4gram": [0.30, 50],  # .21 news (.999 of laws and news .27)
        "max_dup_5gram": [0.75, 50],  # .71 news, .54 laws, others .03 to .06
        "max_dup_10gram": [0.75, 50],  # .71 news, .46 laws, others .01 to .02
        "max_newline_ratio": [0.70, 50],  # .14 laws (.999: .67, a table), verse about .25
        "min_mean_word_length": [2.5, 20],  # 4.9 news; .001 of laws 2.4
        "max_mean_word_length": [12, 20],  # 8.1 news and laws
        "min_alpha_word_fraction": [0.35, 20],  # .55 laws; .001 of news .40
        "max_hash_ratio": [0.10, 20],  # .01 techbook
        "max_ellipsis_ratio": [0.15, 20],  # .01 talks
        "min_stop_words": [2, 100],  # 2 news and laws
    },
}

# Endings of nouns and numerals in sequence: plural, person, case, the copula, ordinals, -lı, -ca, -kı.
SUFFIXES = (
    "l[ae]r|n?[iu]n|[iu]m[iu]z|[iu]n[iu]z|m[iu]z|[iu]?nc[iu]|c[iu]|s[iu]|[yn]?[iu]|[iu]?m|[yn]?[ae]|n?d[ae]|n?d[ae]n|"
    "d[iu]r|l[iu]|s[iu]z|[cl][ae]|yl[ae]|k[iu]|n"
)
# Vowels that differ only by vowel harmony (and its effect on ö in loans) count as equal in endings.
SUFFIX_FOLDS = dict(zip("əıöü", "eiou", strict=True))
SOFTENED = frozenset([("k", "y"), ("q", "ğ"), ("t", "d")])  # çörək, çörəyi
# Vowels of endings by the last vowel before them.
HARMONY = {
    "A": dict(zip("aıoueəiöü", "aaaaəəəəə", strict=True)),
    "I": dict(zip("aıoueəiöü", "ııuuiiiüü", strict=True)),
}

# ---------------------------------------------------------------- personal data

_IBAN = re.compile(r"\bAZ\d{2} ?[A-Z]{4}(?: ?[A-Z0-9]{4}){5}\b")
# International form of any Azerbaijani number, and national form of mobile prefixes and of Baku (012).
_GAP = r"[ .\u2013-]?(?: ?[-\u2013] ?)?"
_PREFIX = "0(?:10|12|50|51|55|60|70|77|99|2[0-6])"
_GROUPS = rf"\d{{3}}{_GAP}\d{{2}}{_GAP}\d{{2}}"
_PHONE = re.compile(
    rf"(?<![\d+])(?:(?:\+|00) ?994|994(?=[ (-]|(?:10|12|50|51|55|60|70|77|99)\d{{7}}(?!\d))){_GAP}"
    rf"(?:\(0?\d{{2}}\)|0?\d{{2}}){_GAP}{_GROUPS}(?!\d)"
    rf"|\((?:\+|00)994{_GAP}\d{{2}}\){_GAP}{_GROUPS}(?!\d)"
    rf"|(?<![\d.,/-])(?:\({_PREFIX}\)|{_PREFIX}){_GAP}{_GROUPS}(?![\d.,/-]?\d)"
)
# Numbers in other groups ("050 12 34 567", "493-00-00") only after a word such as "phone".
_CALL = re.compile(
    r"\b(?:tel|telefon\w{0,6}|mob|mobil|faks|fax|whats?app|wp|zəng|zeng|əlaqə|elaqe)\.?"
    r"(?: nömrə\w{0,6}| üçün| ucun)?[ :№–-]{1,4}"
    r"(\+?\(?\d(?:[ ()-]{0,2}\d){6,12})(?![\d.,/]?\d)",
    re.IGNORECASE,
)
# FIN is the personal code of an identity card: seven letters and digits. It and the series of identity cards and passports
# (AZE, AA, P, ... and digits) look like many other codes, so a word that names them must stand shortly before.
_FIN = re.compile(
    r"\b(?:f[iİı]n(?:[ -]?kod\w{0,6})?|fərdi identifikasiya nömrə\w{0,6})[ :№–-]{1,4}([0-9A-Z]{7})(?![\w-])", re.IGNORECASE
)
_ID = re.compile(
    r"((?:\b(?:şəxsiyyət|vəsiqə|ş/v|pasport|seriya|ser\.)[^\n\d]{0,40}?)\b)"
    r"((?:AZE|AA|AB|AC|P|C|MYI|DYI)[ -]?(?:№|N)? ?\d{6,9}|(?:№|N) ?\d{7,9})(?!\d)"
    r"|()\b(AZE ?(?:№|N)? ?\d{8}|AA ?(?:№|N)? ?\d{7}(?= seriya))(?!\d)",
    re.IGNORECASE,
)

# What a text must contain before the slow patterns above are tried: digits grouped as in a phone or document number. Each
# pattern begins with a plain class or character, so that the search skips other text quickly.
_FIN_WORD = re.compile(r"[Ff][iİIı][Nn]|[Ff]ərdi")
_MAY_CALL = re.compile(r"994|0[1-9]\d")
_PHONE_DIGITS = re.compile(r"\d\d\d[ .\u2013-]{0,4}\d\d[ .\u2013-]{0,4}\d\d")
_CALL_DIGITS = re.compile(r"\d[ ()-]{0,2}\d[ ()-]{0,2}\d(?:[ ()-]{0,2}\d){4}")
_ID_DIGITS = re.compile(r"\d\d{5}")
_ID_WORDS = ("vəsiqə", "ş/v", "pasport", "seriya", "ser.", "aze", "şəxsiyyət")
_CALL_WORDS = ("tel", "mob", "faks", "fax", "whatsap", "wp", "zəng", "zeng", "əlaqə", "elaqe")


def _is_mixed(code: str) -> bool:
    """A FIN contains digits; a match in small letters alone is a word."""
    return any(map(str.isdigit, code)) and (code.isdigit() or code != code.lower())


def _holds(words: tuple[str, ...], text: str) -> bool:
    small = text.lower()
    return any(word in small for word in words)


PERSONAL = (
    PersonalRule("FIN", _FIN, 1, _FIN_WORD.search, 1, lambda match: _is_mixed(match.group(1))),
    PersonalRule("IBAN", _IBAN, 4, lambda text: "AZ" in text, 0, lambda match: checks_iban(match.group())),
    PersonalRule("ID", _ID, 6, lambda text: _ID_DIGITS.search(text) and _holds(_ID_WORDS, text), 2),
    PersonalRule("PHONE", _PHONE, 7, lambda text: _MAY_CALL.search(text) and _PHONE_DIGITS.search(text)),
    PersonalRule("PHONE", _CALL, 7, lambda text: _CALL_DIGITS.search(text) and _holds(_CALL_WORDS, text), 1),
)

# Older articles use Russian names too.
WIKI = WikiNames(
    files=("fayl", "şəkil", "файл", "изображение", "dosya"),
    categories=("kateqoriya", "категория", "kategori"),
    namespaces=(
        "şablon",
        "modul",
        "vikipediya",
        "portal",
        "istifadəçi",
        "yardım",
        "mediaviki",
        "müzakirə",
        "xüsusi",
        "layihə",
        "mövzu",
    ),
    thumbs=("miniatür",),
    sides=("sağda", "solda", "sağ", "sol"),
    sections=(
        "istinadlar",
        "istinad",
        "i̇stinadlar",
        "xarici keçidlər",
        "xarici keçid",
        "xarici linklər",
        "həmçinin bax",
        "həmçinin baxın",
        "mənbə",
        "mənbələr",
        "ədəbiyyat",
        "ədəbiyyat siyahısı",
        "qeydlər",
        "qalereya",
        "şəkillər",
        "fotoqalereya",
    ),
    templates={
        "first": "sitat kiçik şeir iqtibas",
        "last": "dil transliterasiya",
        "unit": "vahid çevir",
        "date": "tarix dəqiq-tarix doğum-tarixi ölüm-tarixi doğum-tarixi-və-yaşı ölüm-tarixi-və-yaşı",
    },
    types={
        "PER": "doğulan vəfat şəxs yazıçı şair aktyor aktris futbolçu siyasətçi alim rəssam müğənni bəstəkar hökmdar prezident",
        "ORG": "şirkət təşkilat universitet klub partiya nazirlik bank qəzet komanda akademiya institut orqan",
        "LOC": "şəhər kənd rayon ölkə dövlət respublika vilayət çay dağ göl ada dəniz qəsəbə paytaxt bölgə okean",
    },
    redirects=("yönləndir", "istiqamətləndirmə", "i̇stiqamətləndirmə", "перенаправление"),
)

# Published figures on other text, not measured here: (name, tokens per word or None, remark, source).
PUBLISHED_TOKENIZERS = (
    ("WordPiece 64k, uncased (AzBERT pipeline)", 1.727, "unknown 0.0053 %, 4.572 characters per token", "raufibishov.com"),
    ("mBERT, as that page measured it", None, "2.846 characters per token", "raufibishov.com"),
    ("SentencePiece BPE 8k on DOLLMA's native part", 1.921, "100k documents", "azerbaijani-pe-research"),
    ("SentencePiece BPE 16k on DOLLMA's native part", 1.674, "100k documents", "azerbaijani-pe-research"),
    ("SentencePiece BPE 32k on DOLLMA's native part", 1.509, "100k documents", "azerbaijani-pe-research"),
    ("Qwen3 on DOLLMA", 3.565, "12.27 M words", "almaz-roster"),
    ("Qwen3 with 36k tokens added, on DOLLMA", 2.379, "12.27 M words", "almaz-roster"),
    ("aLLMA WordPiece 64k", None, "fertility not published", "the paper's repository"),
)

# Cyrillic to Armenian to Arabic, ñ of Tatar Latin, and letters of phonetic script (ŋ ɛ ɔ ʃ ʒ ...).
_FOREIGN = re.compile("[\u0370-\u06ffñÑŋɐ-ɘɚ-ʯ]")


def is_sure(text: str) -> bool:
    """Whether ə alone decides: Latin text with at least 3 % ə and no letter of a neighbouring language.

    It accepts 95 % of 346 Azerbaijani training sentences and none of 5,190 in other languages.
    """
    schwas = text.count("ə") + text.count("Ə")
    return schwas >= 2 and 100 * schwas >= 3 * len(text) and not _FOREIGN.search(text)


# ---------------------------------------------------------------- ways of typing it

_FROM_LATIN = {latin: letter for letter, latin in CYRILLIC.items() if letter not in "йяюёэцщьъ"}


def digraphs(text: str) -> str:
    """ASCII, with sh and ch for ş and ç."""
    for letter, typed in (("ş", "sh"), ("Ş", "Sh"), ("ç", "ch"), ("Ç", "Ch")):
        text = text.replace(letter, typed)
    return ascii_typed(text)


def w_typed(text: str) -> str:
    """ASCII, with w for ş, as in chat messages."""
    return ascii_typed(text.replace("ş", "w").replace("Ş", "W"))


def e_typed(text: str) -> str:
    """Only ə is missing: e is typed for it, as on a Turkish keyboard."""
    return text.replace("ə", "e").replace("Ə", "E")


def spelled_1991(text: str) -> str:
    """The alphabet of 1991: ä for ə."""
    return text.replace("ə", "ä").replace("Ə", "Ä")


def to_cyrillic(text: str) -> str:
    """The Cyrillic of 1958-1991, letter by letter, in lower case."""
    return "".join(_FROM_LATIN.get(letter, letter) for letter in LANGUAGE.lower(text))


LANGUAGE = Language(
    name="azerbaijani",
    code="az",
    code3="azj",
    treebank="az_tuecl",
    scripts=("Latn", "Cyrl"),
    alphabet=ALPHABET,
    alphabet_upper=ALPHABET_UPPER,
    special_letters=SPECIAL_LETTERS,
    plain_signs="«»–…№§°²³₼",
    lower_first={"İ": "i", "I": "ı"},
    upper_first={"i": "İ", "ı": "I"},
    dotted_i=True,
    unified={"schwa": SCHWA, "cedilla": CEDILLA, **MARKS},
    lookalikes=LOOKALIKES,
    lone_lookalikes="әӘ",
    transliteration=CYRILLIC,
    typed_for=_TYPED_LATIN,
    folds=FOLDS,
    typings={
        "ascii": ascii_typed,
        "e": e_typed,
        "digraphs": digraphs,
        "1991": spelled_1991,
        "cyrillic": to_cyrillic,
    },
    bare=ascii_typed,
    other_script=to_cyrillic,
    keyboard=("", "qüertyuiopöğ", "asdfghjklıə", "zxcvbnmçş"),  # of Windows and Linux since 1992, with ü for w
    suffix_marks="-'’",
    neighbour_words=AZERBAIJANI_TURKISH,
    harmony=HARMONY,
    endings=("lAr", "dAn", "dA", "nIn", "In", "dIr", "sIz"),
    exchanged={"dAn": "dA", "dA": "dAn", "nIn": "nI", "In": "I"},  # ablative and locative; genitive to accusative
    mojibake_letters="ƏəǝĞğİıŞşŇňŽžČčŠšĆćĐđŁł",
    stop_words=STOP_WORDS,
    stop_forms=STOP_FORMS,
    fineweb2_stop_words=frozenset(_FINEWEB2.split()),
    presets=PRESETS,
    suffixes=SUFFIXES,
    suffix_folds=SUFFIX_FOLDS,
    softened=SOFTENED,
    words=Path(__file__).with_name("azerbaijani_words.tsv"),  # of the demo corpus (CC0)
    lost_letters="əşğıƏŞĞİ",
    lost_words=("İş", "İşə"),
    abbreviations=ABBREVIATIONS,
    ends_after={"s": "və"},
    year=YEAR,
    period_words=PERIOD_WORDS,
    months=MONTHS,
    personal=PERSONAL,
    wiki=WIKI,
    example="Bakı Azərbaycanın {mask} şəhəridir.",
    morphemes=Path(__file__).with_name("azerbaijani_morphemes.tsv"),
    published_tokenizers=PUBLISHED_TOKENIZERS,
    is_sure=is_sure,
)
lower, upper, normalise, fold_key, fold_lines = (
    LANGUAGE.lower,
    LANGUAGE.upper,
    LANGUAGE.normalise,
    LANGUAGE.fold_key,
    LANGUAGE.fold_lines,
)
repair_lookalikes, to_latin = LANGUAGE.repair_lookalikes, LANGUAGE.transliterate
