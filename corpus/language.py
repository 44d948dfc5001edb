"""Is a text Azerbaijani? A judgement from letters and frequent words, without a model.

`python -m corpus.language < lines` prints one JSON object a line: label ("az" or "other"), script, score.

Informal Azerbaijani is typed without ə ğ ı ş ("cox gozel"), so the lack of those letters is weak evidence: words are
compared on the fold key, and a short text with no evidence either way is kept. Each word votes once, with weights set
by hand.
"""

import json
import math
import re
import sys
import unicodedata
from typing import NamedTuple

from language.azerbaijani import fold_key, normalise

# Words on the fold key that neighbours and English do not share: Azerbaijani deyil is Turkish degil, cox is cok.
_AZ = """deyil cox men mene meni menim mende menden sene seni bele ele nece niye hami hamisi hamiya yox ucun amma
lakin kimi edir edirem edirsen edirler etmeyin eden edib edilib olub olmaq olmur olunur olunub qeder artiq yaxsi
yaxsidi eladi ela boyuk kicik butun hemin hemise haqqinda gore terefinden isteyirem bilmirem bilmir gozel gozeldi
gozeldir lazimdi lazimdir lazim deye nedir neyi necedir hansi sagol sagolun salam tesekkur tesekkurler ozum ozu ozunu
ozune oz yoxdur yoxdu vaxt qiymet indi basqa yaxud hetta uzre elaqe ediyim bilerem ozleri ucundur yalniz ancaq
biri gelir gedir gedib gelib verir verib deyir dedi deyib oldugu olduqca olduqu xeyli muxtelif bezi diger eyni axi
birinci ikinci sirket xanim adam insanlar usaq usaqlar isler ilde ayin olunan edilen baki azerbaycan
azerbaycanin azerbaycanda respublikasi respublikasinin madde qanun sizde bizde onda hec hecne hecbir nese kimse
bilmek gormek elemek eleyir eliyir elesin alinmir islemir isleyir qurban elbette umumiyyetle meselen cunki cunku"""
# Shared with Turkish or others: they count a little, so that they never outvote a distinctive word.
_SHARED = "ve bir bu o da de ki ile var olan her sonra daha biz siz onlar onu ona onun ne kim oldu olur ya hem senin"
_TURKISH = """icin cok degil gibi bana beni benim ben sana kadar nasil neden simdi guzel iyi evet hayir kendi kendisi
buyuk kucuk diye boyle oyle sadece yok hic hicbir bile fakat baska musun misin sey seyi seyler hangi degildir edildi
ediyor oluyor tarafindan once yil yili yilinda kisi tum lutfen uygulama uygulamayi arkadaslar hocam ulke kelime turkce
keske biraz gercekten kotu hizli sorun sorunu bozuk fiyat fiyatlar pahali bence zaten yapin yapmak yapti yapilan
yapilmis saglik cocuk cocuklar baskani bakan yuzde yuzyil boylece ozellikle birlikte uzerinde uzerine dolayi ragmen
sahip sekilde konusunda ilgili iliskin genellikle onemli sirasinda sonrasinda yaklasik bulunan bulunuyor yuksek dusuk
cogu bircok herkes seklinde hukumet halk hayat haber kitap sebep cevap calisma calisan olusan olusturan ulkenin"""
_ENGLISH = """the of and to that for with you this are was have from they will its what your which their been would
there has were our about when had more than into also these other some could only but she my said him them then after
before while where over such did does being may might should who"""
_NEIGHBOURS = """va bilan uchun emas yoki qilish kerak boldi qildi qilgan boshqa ular ham uning hamda haqida
we bilen bolan boldy edyar yaly bolup ony dal bolyar icun olgan qadar soñ kibi kene pek
de le les des et est que los por para der die das und nicht eine zu von chto eto kak dlya"""

AZ_WORDS = frozenset(_AZ.split())
SHARED_WORDS = frozenset(_SHARED.split())
OTHER_WORDS = frozenset(f"{_TURKISH} {_ENGLISH} {_NEIGHBOURS}".split()) - AZ_WORDS - SHARED_WORDS

# Letters that Azerbaijani lacks and Turkmen, Crimean Tatar, Gagauz, Uzbek, Baltic or Slavic Latin has.
_STRANGE_LATIN = re.compile(r"[ñýňžţêãõßåøæłčěřůāēīņļķ]|[og]'(?=\w)")
_FRONT_G = re.compile(r"[eiöü]ğ")  # Turkish değil, öğrenci; Azerbaijani has y there
# Endings on the fold key. Azerbaijani writes q where Turkish has k after a, ı, o, u; -ning, -gan, -dagi are Uzbek.
_FOREIGN_END = re.compile(r"[iu]yor|...[aou]k$|acak|[^e]cekl|mistir$|mektedir|...[aou]y[iu]$|ning$|..gan$|dagi$|moq$")
_AZ_END = re.compile(r"[iu]r(?:am|em|iq|uq)$|..m[iu]r(?:di)?$|..[iu]b(?:di|dir|lar|ler)?$|m[iu]s(?:am|em)$|diyi$")
_X_OR_Q = re.compile(r"[xq]")
_ENGLISH_X_Q = re.compile(r"qu[aeio]|^ex|x[pt]|w|th|oo|ee|tion|ck|ph")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")

_AZ_CYRILLIC_ONLY, _AZ_CYRILLIC = frozenset("ҝҹј"), frozenset("әөүғһ")
_OTHER_TURKIC = frozenset("қңұіҗҙҫҡўҳӊӯӣҷћђљњќї")
_RUSSIAN_ONLY = frozenset("щцъьэюяйё")

PIECE = 1200  # characters judged at the beginning, in the middle and at the end of a long text
THRESHOLD = 0.45  # a text without evidence scores 0.5


class Verdict(NamedTuple):
    """What `identify` says of one text."""

    label: str  # "az" or "other"
    script: str  # Latin, Cyrillic, Arabic, ... or "none" for a text without letters
    score: float  # 0 surely not Azerbaijani, 0.5 no evidence, 1 surely Azerbaijani


def script_of(text: str) -> str:
    """The script of most letters, by the first word of their Unicode names; "none" when there is no letter."""
    letters = [letter for letter in text if letter.isalpha()]
    if not letters:
        return "none"
    latin = sum(letter < "\u0250" or letter == "ə" for letter in letters)
    if 2 * latin > len(letters):
        return "Latin"
    counts: dict[str, int] = {}
    for letter in letters:
        name = unicodedata.name(letter, "UNKNOWN").split()[0].title()
        counts[name] = counts.get(name, 0) + 1
    return max(sorted(counts), key=lambda name: counts[name])


def identify(text: str) -> Verdict:
    """Judge one cleaned text. Arabic-script Azerbaijani is "other" here: nothing downstream could use it."""
    if len(text) > 3 * PIECE:
        middle = len(text) // 2
        text = text[:PIECE] + "\n" + text[middle : middle + PIECE] + "\n" + text[-PIECE:]
    script = script_of(text)
    if script == "none":
        return Verdict("az", script, 0.5)
    if script == "Latin":
        evidence = _latin_evidence(text)
    elif script == "Cyrillic":
        evidence = _cyrillic_evidence(text)
    else:
        evidence = -9.0
    score = round(1 / (1 + math.exp(-max(-20.0, min(20.0, evidence)))), 4)
    return Verdict("az" if score >= THRESHOLD else "other", script, score)


def _latin_evidence(text: str) -> float:
    """Sum of the words' votes: above 0 speaks for Azerbaijani."""
    plain = text.replace("İ", "i").lower()
    votes, words, hits, typed = 0.0, 0, 0.0, 0
    for word in _WORD.findall(plain):
        words += 1
        if "ə" in word:
            votes, hits = votes + 2, hits + 1
            continue
        if not word.isascii():
            typed += 1
            if _STRANGE_LATIN.search(word):
                votes -= 1.5
                continue
            if _FRONT_G.search(word):
                votes -= 1
        elif "'" in word and _STRANGE_LATIN.search(word):
            votes -= 1.5
            continue
        key = fold_key(word) if not word.isascii() else word
        if key in AZ_WORDS:
            votes, hits = votes + 2, hits + 1
        elif key in OTHER_WORDS:
            votes -= 1.5
        elif key in SHARED_WORDS:
            votes, hits = votes + 0.2, hits + 0.2
        elif _X_OR_Q.search(key) and not (word.isascii() and _ENGLISH_X_Q.search(key)):
            votes, hits = votes + 1, hits + 1
        elif _FOREIGN_END.search(key):
            votes -= 1
        elif _AZ_END.search(key):
            votes, hits = votes + 1, hits + 1
    if words >= 12 and hits < words / 20:
        votes -= 4  # even Azerbaijani typed in ASCII shows a frequent word, a q or an x among 20 words
    if words >= 5 and not any(letter in plain for letter in "əqx"):
        # In Azerbaijani one letter in 12 is ə, and one in 30 q or x however it is typed; whoever types ı ş ğ types ə.
        votes -= min(2.5, len(plain) * (0.025 if typed >= 0.3 * words else 0.012))
    return votes + max(0.0, 1.5 - words / 10)  # a comment of few words gets the benefit of the doubt


def _cyrillic_evidence(text: str) -> float:
    """Votes of letters: ҝ ҹ ј are Azerbaijani's own, ә ө ү ғ һ shared, the rest a neighbour's or Russian."""
    plain = text.lower()
    own = shared = turkic = russian = total = 0
    for letter in plain:
        if letter.isalpha():
            total += 1
            own += letter in _AZ_CYRILLIC_ONLY
            shared += letter in _AZ_CYRILLIC
            turkic += letter in _OTHER_TURKIC
            russian += letter in _RUSSIAN_ONLY
    return (60 * own + 10 * shared - 60 * turkic - 40 * russian) / total * min(1.0, total / 20) - 0.6


def main() -> None:
    """Judge standard input line by line."""
    for line in sys.stdin.buffer:
        verdict = identify(normalise(line.decode("utf-8", errors="replace"))[0])
        print(json.dumps(verdict._asdict()), flush=False)


if __name__ == "__main__":
    main()
