"""Turkish: alphabet, casing of İ/i and I/ı, words, sentence ends, suffixes, personal data, wiki names."""

import re

from language.base import MARKS, Language, PersonalRule, WikiNames, ascii_typed, checks_iban
from language.cognates import TURKISH_AZERBAIJANI

ALPHABET = "abcçdefgğhıijklmnoöprsştuüvyz"  # 29 letters of the alphabet of 1928, in its order
ALPHABET_UPPER = "ABCÇDEFGĞHIİJKLMNOÖPRSŞTUÜVYZ"

_STOP_WORDS = """ve ile bir bu o da de ki için olan gibi daha çok sonra ise göre onun her ama fakat ancak yani eğer hem hiç ne
nasıl niçin neden hangi kim ben sen biz siz onlar benim senin bizim sizin onların öz kendi var yok değil idi imiş olur oldu
olarak eden ediyor etmek olmak kadar artık şimdi böyle öyle bütün tüm herkes hakkında tarafından üzere arasında yalnızca ya
veya çünkü başka diğer bazı hatta bunu buna bundan ona onu ondan size bana sana bize şey şu mı mi mu mü en"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
_TO_ASCII = str.maketrans("ğıöşüç", "giosuc")
STOP_FORMS = {
    form: word
    for word in sorted(STOP_WORDS)
    for key in (word.translate(_TO_ASCII),)
    for form in (word, key, key.replace("i", "ı"))
}

# A full stop after one of these does not end a sentence.
_ABBREVIATIONS = """prof doç dr yrd av müh mim öğr gör alb bnb yzb tğm org kor gen sn st mah sok cad bul apt no tel faks dahil
vb vs vd bkz krş çev haz yay yy s sf ss c bl böl a.g.e m.ö m.s i.ö i.s t.c a.ş ltd şti mim ing fr alm ar far lat kg km cm mm"""
ABBREVIATIONS = frozenset(_ABBREVIATIONS.split())
MONTHS = ("ocak", "şubat", "mart", "nisan", "mayıs", "haziran", "temmuz", "ağustos", "eylül", "ekim", "kasım", "aralık")

# Endings of nouns and numerals in sequence: plural, person, case, the copula, ordinals, -lı, -ca, -ki.
SUFFIXES = (
    "l[ae]r|n?[iu]n|[iu]m[iu]z|[iu]n[iu]z|m[iu]z|[iu]?nc[iu]|c[iu]|s[iu]|[yn]?[iu]|[iu]?m|[yn]?[ae]|n?[dt][ae]|n?[dt][ae]n|"
    "[dt][iu]r|l[iu]k?|s[iu]z|[ctl][ae]|yl[ae]|k[iu]|n"
)

# ---------------------------------------------------------------- personal data

_IBAN = re.compile(r"\bTR\d{2} ?\d{4}(?: ?\d{4}){4} ?\d{2}\b")
_GAP = r"[ .\u2013-]?"
# International form, and the national form of mobile (05xx) and area codes (02xx to 04xx).
_PHONE = re.compile(
    rf"(?<![\d+])(?:\+|00) ?90{_GAP}\(?[2-5]\d{{2}}\)?{_GAP}\d{{3}}{_GAP}\d{{2}}{_GAP}\d{{2}}(?!\d)"
    rf"|(?<![\d.,/-])(?:\(0[2-5]\d{{2}}\)|0[2-5]\d{{2}}){_GAP}\d{{3}}{_GAP}\d{{2}}{_GAP}\d{{2}}(?![\d.,/-]?\d)"
)
_PHONE_DIGITS = re.compile(r"\d\d\d\)?[ .\u2013-]?\d\d\d[ .\u2013-]?\d\d")
_IDENTITY = re.compile(r"(?<![\d.,-])[1-9]\d{10}(?![\d.,-]?\d)")


def checks_identity(number: str) -> bool:
    """Whether eleven digits are a T.C. identity number: the tenth and eleventh are check digits of the others."""
    digits = [int(digit) for digit in number]
    tenth = (7 * sum(digits[0:9:2]) - sum(digits[1:8:2])) % 10
    return digits[9] == tenth and digits[10] == sum(digits[:10]) % 10


PERSONAL = (
    PersonalRule("IBAN", _IBAN, 24, lambda text: "TR" in text, 0, lambda match: checks_iban(match.group())),
    PersonalRule("ID", _IDENTITY, 11, _IDENTITY.search, 0, lambda match: checks_identity(match.group())),
    PersonalRule("PHONE", _PHONE, 10, _PHONE_DIGITS.search),
)

WIKI = WikiNames(
    files=("dosya", "resim"),
    categories=("kategori",),
    namespaces=("şablon", "modül", "vikipedi", "portal", "kullanıcı", "yardım", "mediawiki", "tartışma", "özel", "vikiproje"),
    thumbs=("küçükresim", "küçük"),
    sides=("sağ", "sol", "orta"),
    sections=(
        "kaynakça",
        "kaynaklar",
        "dış bağlantılar",
        "ayrıca bakınız",
        "notlar",
        "dipnotlar",
        "galeri",
        "resim galerisi",
        "konuyla ilgili yayınlar",
    ),
    types={
        "PER": "doğan ölen kişi yazar şair oyuncu aktör aktris futbolcu siyasetçi bilim ressam şarkıcı besteci hükümdar",
        "ORG": "şirket örgüt kuruluş üniversite kulüp kulüb parti bakanlık banka gazete takım akademi enstitü",
        "LOC": "şehir şehr köy ilçe belde ülke devlet eyalet nehir nehr dağ göl ada deniz başkent bölge okyanus",
    },
    redirects=("yönlendirme", "yönlendir"),
)

LANGUAGE = Language(
    name="turkish",
    code="tr",
    code3="tur",
    treebank="tr_boun",
    scripts=("Latn",),
    alphabet=ALPHABET,
    alphabet_upper=ALPHABET_UPPER,
    special_letters="ğıöşüç",
    plain_signs="«»–…§°²³₺âîûÂÎÛ",
    lower_first={"İ": "i", "I": "ı"},
    upper_first={"i": "İ", "ı": "I"},
    dotted_i=True,
    unified={"cedilla": {"ș": "ş", "Ș": "Ş", "ț": "ţ", "Ț": "Ţ"}, **MARKS},
    lookalikes=dict(zip("аеосрхіјАВЕІЈКМНОРСТХ", "aeocpxijABEIJKMHOPCTX", strict=True)),
    folds=dict(zip("ışüöçğ", "isuocg", strict=True)),
    typings={"ascii": ascii_typed},
    bare=ascii_typed,
    keyboard=("", "qwertyuıopğü", "asdfghjklşi", "zxcvbnmöç"),  # TS 2117, Q
    suffix_marks="'’-",
    neighbour_words=TURKISH_AZERBAIJANI,
    harmony={
        "A": dict(zip("aıoueiöü", "aaaaeeee", strict=True)),
        "I": dict(zip("aıoueiöü", "ııuuiiüü", strict=True)),
    },
    endings=("lAr", "dAn", "tAn", "dA", "tA", "nIn", "In", "dIr", "tIr", "sIz", "lIk"),
    exchanged={"dAn": "dA", "dA": "dAn", "tAn": "tA", "tA": "tAn", "nIn": "nI", "In": "I"},
    mojibake_letters="ĞğİıŞş",
    stop_words=STOP_WORDS,
    stop_forms=STOP_FORMS,
    suffixes=SUFFIXES,
    suffix_folds=dict(zip("ıöü", "iou", strict=True)),
    softened=frozenset([("k", "ğ"), ("t", "d"), ("p", "b"), ("ç", "c")]),  # kitap, kitabı
    abbreviations=ABBREVIATIONS,
    period_words=frozenset(["yüzyıl", "yy", "yıl", "yılı"]),
    months=MONTHS,
    personal=PERSONAL,
    wiki=WIKI,
    example="Ankara Türkiye'nin {mask} şehridir.",
)
