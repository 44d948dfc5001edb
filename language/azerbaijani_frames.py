"""Frames of Azerbaijani minimal pairs: the morphology that fills them, and one function for each phenomenon.

Each function of PHENOMENA yields (group, correct sentence, wrong sentence), without capitals at the beginning. Suffixes are
written with A (a or ə), I (ı, i, u or ü) and K (q or k), a first sound that depends on the stem in brackets. Grammar:
Müasir Azərbaycan dili, II (2007), and Schönig, "Azerbaijanian", in The Turkic Languages (1998).
"""

from collections.abc import Callable, Iterator
from itertools import permutations

Triple = tuple[str, str, str]
BACK, VOWELS = "aıou", "aıoueəiöü"
HIGH = dict(zip(VOWELS, "ııuuiiiüü", strict=True))  # the high vowel after each vowel
OTHER = str.maketrans("aəıiuü", "əaiıüu")  # the same vowel of the other class
VOICED = {"get": "ged", "et": "ed", "eşit": "eşid", "qayıt": "qayıd"}  # verbs whose t becomes d before a vowel
PRONOUNS = ("mən", "sən", "biz", "siz")
OWNERS = ("mənim", "sənin", "bizim", "sizin")
POSSESSIVE = ("(I)m", "(I)n", "(I)mIz", "(I)nIz")  # of these four persons
ACC, GEN, DAT, LOC, ABL = "(n)I", "(n)In", "(y)A", "dA", "dAn"
TENSES = {  # stem and personal endings of the four persons
    "past": ("dI", ("m", "n", "K", "nIz")),
    "present": ("(y)Ir", ("Am", "sAn", "IK", "sInIz")),
    "future": ("(y)AcAK", ("Am", "sAn", "IK", "sInIz")),
}


def add(stem: str, *suffixes: str, soft: bool = True, flip: bool = False) -> str:
    """A stem with suffixes by vowel harmony.

    `soft`: k and q at the end of a long stem become y and ğ before a vowel. `flip`: the last suffix breaks the harmony.
    """
    word = stem
    for number, suffix in enumerate(suffixes):
        pattern = suffix
        if suffix.startswith("("):
            needed = (word[-1] in VOWELS) != (suffix[1] == "I")
            pattern = suffix[1] * needed + suffix[3:]
        ending, last = "", next(letter for letter in reversed(word) if letter in VOWELS)
        for sign in pattern:
            letter = {"A": "a" if last in BACK else "ə", "I": HIGH[last], "K": "q" if last in BACK else "k"}.get(sign, sign)
            last = letter if letter in VOWELS else last
            ending += letter
        if ending[0] in VOWELS:
            if word in VOICED:
                word = VOICED[word]
            elif soft and sum(letter in VOWELS for letter in word) > 1:
                word = word[:-1] + {"k": "y", "q": "ğ"}.get(word[-1], word[-1])
        word += ending.translate(OTHER) if flip and number == len(suffixes) - 1 else ending
    return word


def verb(stem: str, tense: str, person: int) -> str:
    """A finite form: person 0 to 3 is mən, sən, biz, siz."""
    suffix, endings = TENSES[tense]
    return add(add(stem, suffix), endings[person])


def past(stem: str) -> str:
    """The third person of the past: oxudu."""
    return add(stem, "dI")


# What people do: an object or a place in its case, and a verb.
ACTIONS = """kitabı oxu|məktubu yaz|qapını aç|pəncərəni bağla|çörəyi kəs|dərsi öyrən|evə get|bazara get|suyu iç|filmi izlə
otağı təmizlə|paltarı yu|şəkli çək|həkimi gözlə|bağda işlə|yeməyi bişir|ağacı ək|topu at|açarı tap|alma al|qonağı qarşıla
mahnını dinlə|məktəbə get|çayı iç|maşını yu|pulu say|kömək et|xəbəri eşit"""
ACTIONS = tuple(tuple(part.rsplit(" ", 1)) for part in ACTIONS.replace("\n", "|").split("|"))
PEOPLE = ["uşaq", "qız", "oğlan", "müəllim", "həkim", "tələbə", "qonşu", "usta", "rəssam", "qonaq"]
THINGS = ["kitab", "qələm", "dəftər", "alma", "armud", "açar", "çanta", "güzgü", "qəzet", "jurnal", "papaq", "stul"]
PLACES = [
    "ev",
    "bağ",
    "məktəb",
    "şəhər",
    "kənd",
    "meşə",
    "kitabxana",
    "muzey",
    "mağaza",
    "bazar",
    "küçə",
    "həyət",
    "xəstəxana",
    "park",
]
# Nouns whose last sound changes before a vowel.
CHANGING = [
    "uşaq",
    "otaq",
    "balıq",
    "qonaq",
    "bulaq",
    "inək",
    "ördək",
    "çiçək",
    "göbələk",
    "yarpaq",
    "köynək",
    "bıçaq",
    "papaq",
    "qaşıq",
]
BODY = ["ayaq", "barmaq", "ürək", "bilək", "kürək", "qulaq", "dodaq", "dirsək"]
NUMBERS = ["iki", "üç", "dörd", "beş", "altı", "yeddi", "səkkiz", "on", "iyirmi", "otuz"]


def subject_verb_person() -> Iterator[Triple]:
    """The verb has the person of its pronoun: mən oxudum, *mən oxudun."""
    for thing, stem in ACTIONS:
        for tense, when in (("past", "dünən"), ("present", "indi"), ("future", "sabah")):
            for one, other in permutations(range(4), 2):
                start = f"{PRONOUNS[one]} {when} {thing}"
                yield f"{tense}-{stem}", f"{start} {verb(stem, tense, one)}.", f"{start} {verb(stem, tense, other)}."


def subject_verb_number() -> Iterator[Triple]:
    """A single animal takes no plural verb: pişik yatır, *pişik yatırlar."""
    acts = "bağda yat|süd iç|həyətdə otur|yuvada yat|su iç|meşədə yaşa|suda üz|ağacın altında dayan|yolda qaç|evə qayıt"
    animals = ["pişik", "it", "at", "inək", "toyuq", "ördək", "qoyun", "keçi", "dovşan"]
    only = {"süd": ["pişik", "it"], "yuvada": ["quş", "ördək", "toyuq"], "suda": ["ördək", "it", "balıq"]}
    for act in acts.split("|"):
        what, stem = act.rsplit(" ", 1)
        for animal in only.get(what, animals):
            for suffix in ("(y)Ir", "dI"):
                form = add(stem, suffix)
                yield stem + what, f"{animal} {what} {form}.", f"{animal} {what} {add(form, 'lAr')}."


def copula_person() -> Iterator[Triple]:
    """A noun as predicate has the person of its pronoun: mən həkiməm, *mən həkimsən."""
    nouns = [
        "həkim",
        "müəllim",
        "tələbə",
        "rəssam",
        "usta",
        "mühəndis",
        "jurnalist",
        "yazıçı",
        "aktyor",
        "sürücü",
        "bağban",
        "aşpaz",
    ]
    for word in ("gənc", "yaxşı", "təcrübəli", ""):
        for noun in nouns:
            forms = [add(noun, suffix) for suffix in ("(y)Am", "sAn", "(y)IK", "sInIz")]
            for one, other in permutations(range(4), 2):
                start = f"{PRONOUNS[one]} {word}".strip()
                yield f"{word}-{one}-{other}", f"{start} {forms[one]}.", f"{start} {forms[other]}."


def vowel_harmony() -> Iterator[Triple]:
    """Suffixes follow the last vowel of the stem: evdə, *evda."""
    frames = (
        ("plural", "{} stolun üstündədir", THINGS[:-1], "lAr"),
        ("locative", "biz dünən {} idik", PLACES, LOC),
        ("ablative", "o, axşam {} qayıtdı", PLACES, ABL),
        ("dative", "onlar səhər {} getdilər", PLACES, DAT),
        ("accusative", "biz bu {} çox sevirik", PLACES, ACC),
        ("genitive", "{} qapısı bağlıdır", ["ev", "məktəb", "muzey", "mağaza", "xəstəxana", "otaq", "maşın"], GEN),
        ("possessive", "mənim {} haradadır", THINGS, "(I)m"),
    )
    for name, frame, nouns, suffix in frames:
        for noun in nouns:
            mark = "?" if "hara" in frame else "."
            if add(noun, suffix) != add(noun, suffix, flip=True):
                yield name, frame.format(add(noun, suffix)) + mark, frame.format(add(noun, suffix, flip=True)) + mark


def consonant_change() -> Iterator[Triple]:
    """k and q of a long stem become y and ğ before a vowel: uşağı, *uşaqı."""
    frames = (
        ("accusative", "mən bu {} gördüm.", CHANGING, ACC),
        ("accusative2", "biz həmin {} axtarırıq.", CHANGING, ACC),
        ("dative", "o, {} baxır.", CHANGING, DAT),
        ("genitive", "bu {} şəklini çəkdim.", CHANGING, GEN),
        ("possessive", "mənim {} ağrıyır.", BODY, "(I)m"),
        ("possessive2", "sənin {} ağrıyırmı?", BODY, "(I)n"),
    )
    for name, frame, nouns, suffix in frames:
        for noun in nouns:
            yield name, frame.format(add(noun, suffix)), frame.format(add(noun, suffix, soft=False))


def case_government() -> Iterator[Triple]:
    """A verb governs the case of its object: itdən qorxuram, *itə qorxuram."""
    frames = (
        ("qorx", "mən {} qorxuram.", "it ilan ayı canavar həkim", ABL, DAT),
        ("inan", "o, {} inanır.", "dost müəllim həkim qonşu", DAT, ABL),
        ("kömək", "biz {} kömək edirik.", "nənə qonşu müəllim tələbə uşaq", DAT, ACC),
        ("zəng", "o, {} zəng etdi.", "həkim dost müəllim qonşu usta", DAT, ACC),
        ("şübhələn", "onlar {} şübhələnirlər.", "satıcı qonşu usta sürücü", ABL, DAT),
        ("utan", "uşaq {} utanır.", "müəllim qonaq qonşu həkim", ABL, ACC),
        ("gözlə", "biz {} gözləyirik.", "avtobus qatar qonaq həkim müəllim", ACC, DAT),
        ("sev", "mən {} çox sevirəm.", "dəniz musiqi şəhər meşə kitab", ACC, DAT),
        ("min", "o, {} mindi.", "avtobus qatar at velosiped maşın", DAT, ABL),
        ("düş", "o, {} düşdü.", "avtobus qatar at velosiped maşın", ABL, ACC),
        ("imtina", "mən {} imtina etdim.", "yemək iş kömək hədiyyə", ABL, DAT),
        ("qulaq", "o, {} qulaq asır.", "musiqi mahnı müəllim radio", DAT, ACC),
        ("oxşa", "bu oğlan {} oxşayır.", "aktyor həkim müəllim idmançı", DAT, ABL),
        ("nifrət", "o, {} nifrət edir.", "müharibə yalan düşmən", DAT, ACC),
    )
    for name, frame, nouns, right, wrong in frames:
        for noun in nouns.split():
            yield name, frame.format(add(noun, right)), frame.format(add(noun, wrong))


def postposition_case() -> Iterator[Triple]:
    """A postposition governs the case of its noun: dərsdən sonra, *dərsə sonra."""
    frames = (
        ("qədər", "biz {} qədər gəzdik.", "park meşə dəniz körpü bazar məktəb teatr", DAT, ABL),
        ("sonra", "{} sonra evə getdik.", "dərs iş konsert toy imtahan iclas film", ABL, DAT),
        ("əvvəl", "{} əvvəl çay içdik.", "dərs konsert toy imtahan iclas yemək", ABL, DAT),
        ("görə", "{} görə evdə qaldıq.", "yağış qar külək xəstəlik soyuq duman isti", DAT, ABL),
        ("haqqında", "o, {} haqqında danışdı.", "film kitab müəllim şəhər səyahət konsert yarış muzey", "", DAT),
        ("üçün", "mən {} üçün hədiyyə aldım.", "uşaq müəllim dost nənə qonşu bacı həkim", "", DAT),
        ("başqa", "otaqda {} başqa heç kim yox idi.", "uşaq müəllim həkim qonşu tələbə satıcı", ABL, DAT),
        ("ilə", "biz {} ilə getdik.", "avtobus qatar maşın təyyarə velosiped", "", DAT),
        ("tərəf", "o, {} tərəf qaçdı.", "ev meşə məktəb qapı dəniz küçə maşın", DAT, ACC),
        ("qarşı", "onlar {} qarşı mübarizə aparır.", "xəstəlik düşmən yoxsulluq", DAT, ABL),
    )
    for name, frame, nouns, right, wrong in frames:
        for noun in nouns.split():
            yield name, frame.format(add(noun, right) if right else noun), frame.format(add(noun, wrong))


# Owned things and what is said of them.
OWNED = (
    ("kitab", "stolun üstündədir"), ("telefon", "təzədir"), ("ev", "böyükdür"), ("maşın", "qırmızıdır"),
    ("qələm", "itib"), ("çanta", "ağırdır"), ("bağ", "gözəldir"), ("saat", "işləmir"), ("dost", "gəlir"),
    ("müəllim", "danışır"), ("pişik", "yatır"), ("qapı", "açıqdır"), ("paltar", "təmizdir"), ("otaq", "işıqlıdır"),
    ("bacı", "məktəbdədir"), ("qardaş", "evdədir"),
)  # fmt: skip


def possessive_agreement() -> Iterator[Triple]:
    """The noun has the person of its owner: mənim kitabım, *mənim kitabın."""
    for noun, said in OWNED:
        for one, other in permutations(range(4), 2):
            forms = [add(noun, POSSESSIVE[person]) for person in (one, other)]
            yield f"{one}-{other}-{noun[0]}", f"{OWNERS[one]} {forms[0]} {said}.", f"{OWNERS[one]} {forms[1]} {said}."


def genitive_construction() -> Iterator[Triple]:
    """What a genitive owns has the possessive suffix: qızın kitabı, *qızın kitab."""
    for noun, said in OWNED:
        for owner in PEOPLE:
            if owner != noun:
                start = add(owner, GEN)
                yield noun, f"{start} {add(noun, '(s)I')} {said}.", f"{start} {noun} {said}."


def negation() -> Iterator[Triple]:
    """Qualities are denied by deyil, existence by yoxdur: ev böyük deyil, evdə su yoxdur."""
    said = "ev böyük|kitab maraqlı|alma şirin|yol uzun|otaq işıqlı|maşın baha|paltar təmiz|dağ hündür|çanta ağır|sual çətin"
    said += "|film uzun|küçə sakit|şəhər köhnə|həyət geniş|çay isti|imtahan asan|qonaq ac|körpü möhkəm"
    for which in ("bu", "o", "həmin"):
        for part in said.split("|"):
            noun, quality = part.split()
            yield f"{which}-{noun}", f"{which} {noun} {quality} deyil.", f"{which} {noun} {quality} yox."
    there = "ev su|otaq stul|bağ ağac|kənd məktəb|şəhər metro|mağaza çörək|sinif xəritə|çanta açar|küçə maşın|soyuducu süd"
    there += "|kitabxana kompüter|həyət quyu|göl balıq|meşə canavar"
    for when in ("", "indi ", "bu gün "):
        for part in there.split("|"):
            place, noun = part.split()
            start = f"{when}{add(place, LOC)} {noun}"
            yield f"{when}{place}", f"{start} yoxdur.", f"{start} deyildir."


def negative_polarity() -> Iterator[Triple]:
    """Words with heç need a negated verb: heç kim gəlmədi, *heç kim gəldi."""
    for start in ("heç kim", "heç kəs", "heç bir uşaq", "heç bir tələbə", "onlardan heç biri"):
        for thing, stem in ACTIONS:
            yield start, f"{start} {thing} {add(stem, 'mA', 'dI')}.", f"{start} {thing} {past(stem)}."
    for stem in ["oxu", "yaz", "al", "gör", "eşit", "iç", "tap", "bil", "öyrən", "gətir", "soruş"]:
        for person, pronoun in enumerate(PRONOUNS):
            ending = TENSES["past"][1][person]
            start = f"{pronoun} heç nə"
            yield start, f"{start} {add(stem, 'mA', 'dI', ending)}.", f"{start} {add(stem, 'dI', ending)}."
    for thing, stem in ACTIONS:
        yield "heç vaxt", f"o, heç vaxt {thing} {add(add(stem, 'm'), 'Ir')}.", f"o, heç vaxt {thing} {add(stem, '(y)Ir')}."


def tense_and_adverb() -> Iterator[Triple]:
    """The tense fits the time that is named: dünən oxudum, *dünən oxuyacağam."""
    before = ("dünən", "keçən həftə", "iki gün əvvəl", "keçən ay")
    after = ("sabah", "gələn həftə", "birisi gün", "gələn ay")
    for thing, stem in ACTIONS:
        for times, right, wrong in ((before, "past", "future"), (after, "future", "past")):
            for when in times:
                for person, pronoun in enumerate(PRONOUNS):
                    start = f"{pronoun} {when} {thing}"
                    yield f"{when}-{person}", f"{start} {verb(stem, right, person)}.", f"{start} {verb(stem, wrong, person)}."


def perfect_evidential() -> Iterator[Triple]:
    """The perfect in -ıb has no first person, which is -mışam: mən oxumuşam, *mən oxuyubam."""
    for thing, stem in ACTIONS:
        for when in ("artıq", "çoxdan", "bir dəfə", "hələ uşaqlıqda"):
            for pronoun, ending in (("mən", "Am"), ("biz", "IK")):
                start = f"{pronoun} {when} {thing}"
                yield f"{when}-{pronoun}", f"{start} {add(stem, 'mIş', ending)}.", f"{start} {add(stem, '(y)Ib', ending)}."


def question_particle() -> Iterator[Triple]:
    """-mı follows the last vowel, and is not used beside a word that asks: oxudunmu?, *oxudunmı?, *kim oxudumu?"""
    for thing, stem in ACTIONS:
        form = verb(stem, "past", 1)
        wrong = add(form, "mI")[:-1] + {"ı": "i", "i": "ı", "u": "ü", "ü": "u"}[add(form, "mI")[-1]]
        yield f"harmony-{form[-2]}", f"sən {thing} {add(form, 'mI')}?", f"sən {thing} {wrong}?"
        yield "kim", f"kim {thing} {past(stem)}?", f"kim {thing} {add(past(stem), 'mI')}?"
        yield "nə vaxt", f"sən nə vaxt {thing} {form}?", f"sən nə vaxt {thing} {add(form, 'mI')}?"
        plural = verb(stem, "past", 3)
        yield "niyə", f"siz niyə {thing} {plural}?", f"siz niyə {thing} {add(plural, 'mI')}?"


def numerals() -> Iterator[Triple]:
    """A noun after a numeral is singular: üç kitab, *üç kitablar."""
    frames = (
        ("aldım", "mən dünən {} {} aldım.", THINGS),
        ("var", "stolun üstündə {} {} var.", THINGS[:-1]),
        ("otaqda", "otaqda {} {} oturub.", PEOPLE),
        ("gördük", "biz yolda {} {} gördük.", PEOPLE),
        ("kənddə", "bu kənddə {} {} var.", ["məktəb", "mağaza", "bulaq", "körpü", "ev"]),
        ("gəldi", "toya {} {} gəldi.", ["qonaq", "rəssam", "müəllim", "tələbə"]),
    )
    for name, frame, nouns in frames:
        for place, noun in enumerate(nouns):
            for number in NUMBERS[place % 3 :: 2]:
                yield f"{name}-{number}", frame.format(number, noun), frame.format(number, add(noun, "lAr"))


def word_order() -> Iterator[Triple]:
    """Adjective, demonstrative and noun have their order, and a postposition follows its noun."""
    said = "böyük ev|köhnə maşın|qırmızı çanta|təzə telefon|kiçik masa|gözəl xalça|bahalı saat|yaşıl paltar|yumşaq yastıq"
    for start, end in (("biz", "aldıq"), ("onlar", "satdılar"), ("qonşu", "axtarır")):
        for part in said.split("|"):
            quality, noun = part.split()
            yield f"adjective-{end}", f"{start} {quality} {noun} {end}.", f"{start} {noun} {quality} {end}."
    for which in ("bu", "həmin"):
        for thing, stem in ACTIONS:
            if thing[-1] in "ıiuü":
                yield f"demonstrative-{which}", f"uşaq {which} {thing} {past(stem)}.", f"uşaq {thing} {which} {past(stem)}."
    for after, start, end in (("üçün", "mən", "hədiyyə aldım"), ("haqqında", "biz", "danışdıq"), ("kimi", "o, bir", "danışır")):
        for noun in PEOPLE:
            yield f"postposition-{after}", f"{start} {noun} {after} {end}.", f"{start} {after} {noun} {end}."


# A verb, what it is done to, and what is said of that.
DONE = (
    ("oxu", "kitab", "maraqlıdır"), ("yaz", "məktub", "uzundur"), ("al", "alma", "şirindir"), ("gör", "film", "gözəl idi"),
    ("bişir", "yemək", "dadlıdır"), ("çək", "şəkil", "gözəldir"), ("tik", "ev", "böyükdür"), ("dinlə", "mahnı", "qədimdir"),
    ("ək", "ağac", "böyüyüb"), ("sür", "maşın", "təzədir"), ("seç", "paltar", "bahadır"), ("tap", "açar", "köhnədir"),
    ("ver", "sual", "çətindir"), ("gözlə", "qonaq", "gəlmədi"), ("sev", "şəhər", "uzaqdır"), ("axtar", "qələm", "burada deyil"),
)  # fmt: skip


def relative_clauses() -> Iterator[Triple]:
    """-dığı for what is done, -an for who does it: mənim oxuduğum kitab, kitabı oxuyan uşaq, not -an, nor the infinitive."""
    for stem, noun, said in DONE:
        forms = [add(stem, "dIK", suffix) for suffix in POSSESSIVE]
        for person, owner in enumerate(OWNERS):
            good = f"{owner} {forms[person]} {noun} {said}."
            yield f"object-{owner}", good, f"{owner} {add(stem, '(y)An')} {noun} {said}."
            other = forms[(person + 1) % 4]
            yield f"person-{owner}", good, f"{owner} {other} {noun} {said}."
    for thing, stem in ACTIONS:
        for who, did in (("uşaq", "güldü"), ("qız", "yoruldu"), ("oğlan", "sevindi"), ("kişi", "dayandı")):
            # Not -dığı: kitabı oxuduğu uşaq is the child to whom somebody reads.
            good = f"{thing} {add(stem, '(y)An')} {who} {did}."
            yield f"subject-{who}", good, f"{thing} {add(stem, 'mAK')} {who} {did}."


def binding() -> Iterator[Triple]:
    """öz has the person of the subject: mən özümü yaxşı hiss edirəm, *mən özünüzü yaxşı hiss edirəm."""
    own = ("özüm", "özün", "özümüz", "özünüz")
    others = [pair for pair in permutations(range(4), 2) if set(pair) != {1, 3}]  # sən and siz are mixed in speech
    said = (
        (ACC, "yaxşı hiss et"), (ACC, "pis hiss et"), (ACC, "yorğun hiss et"), (ACC, "xoşbəxt hiss et"),
        (ACC, "rahat hiss et"), (ACC, "sakit apar"), (ACC, "ağıllı apar"),
    )  # fmt: skip
    for case, words in said:
        rest, stem = words.rsplit(" ", 1)
        for tense in ("present", "past"):
            for one, other in others:
                end = f"{rest} {verb(stem, tense, one)}."
                forms = [f"{PRONOUNS[one]} {add(own[person], case)} {end}" for person in (one, other)]
                yield f"{words}-{tense}", *forms
    for thing, stem in ACTIONS:
        for one, other in others:
            end = f"{thing} {verb(stem, 'past', one)}."
            yield f"emphasis-{one}", f"{PRONOUNS[one]} {own[one]} {end}", f"{PRONOUNS[one]} {own[other]} {end}"


def definite_object() -> Iterator[Triple]:
    """An object with a demonstrative is accusative: bu kitabı oxudum, *bu kitab oxudum."""
    said = "kitab oxu|film izlə|mahnı dinlə|məktub yaz|alma kəs|ev tik|paltar al|qapı aç|qəzet oxu|maşın sat|otaq təmizlə"
    for which in ("bu", "o", "həmin"):
        for person, pronoun in enumerate(PRONOUNS):
            for part in said.split("|"):
                noun, stem = part.split()
                end = f"{verb(stem, 'past', person)}."
                yield f"{which}-{pronoun}", f"{pronoun} {which} {add(noun, ACC)} {end}", f"{pronoun} {which} {noun} {end}"


def comparison() -> Iterator[Triple]:
    """What is compared with is ablative: dağ təpədən hündürdür, *dağ təpəyə hündürdür."""
    said = """dağ təpə hündür|at eşşək sürətli|dəniz göl dərin|qış payız soyuq|təyyarə qatar sürətli|şəhər kənd böyük
alma limon şirin|qızıl gümüş baha|aslan pişik güclü|yay yaz isti|fil at böyük|daş pambıq ağır|nənə ana yaşlı|kitab dəftər qalın
polad taxta möhkəm|ay ulduz parlaq"""
    for more in ("", "daha ", "çox "):
        for part in said.replace("\n", "|").split("|"):
            one, other, quality = part.split()
            end = f"{more}{add(quality, 'dIr')}."
            yield f"{more}{quality}", f"{one} {add(other, ABL)} {end}", f"{one} {add(other, DAT)} {end}"
    for part in ["ev böyük", "yol uzun", "otaq geniş", "film maraqlı", "sual asan", "küçə sakit"]:
        noun, quality = part.split()
        for other in (DAT, LOC):
            start, end = f"bu {noun} o", f"{add(quality, 'dIr')}."
            yield f"bu-{noun}", f"{start} {add(noun, ABL)} {end}", f"{start} {add(noun, other)} {end}"


FUNCTIONS: tuple[Callable[[], Iterator[Triple]], ...] = (
    subject_verb_person, subject_verb_number, copula_person, vowel_harmony, consonant_change, case_government,
    postposition_case, possessive_agreement, genitive_construction, negation, negative_polarity, tense_and_adverb,
    perfect_evidential, question_particle, numerals, word_order, relative_clauses, binding, definite_object, comparison,
)  # fmt: skip
PHENOMENA = {make.__name__: make for make in FUNCTIONS}
