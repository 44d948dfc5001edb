"""Spaces that a PDF put into Azerbaijani words ("m ə hk ə m ə y ə", "q a n u n") or left out between them, put right.

    python -m language.spacing data/demo/corpus/*.jsonl > language/words.tsv

makes the list of words that decides. Fonts that lack ə, ş, ğ, ı and İ took these from a second font, and extraction
leaves a space on both sides of each: in "madd ə sin ə uy ğ un olaraq" three of the spaces are real. Which ones, is the cheapest
way of cutting the letters into words: a known word costs by its frequency, an unknown one by its letters.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path

from language.azerbaijani import STOP_WORDS, lower

WORDS_FILE = Path(__file__).with_name("words.tsv")  # word and count, from the demo corpus (CC0)
_LOST = "əşğıƏŞĞİәӘ"  # the letters that old fonts lack, and the Cyrillic look-alike of the first
_LETTER = r"[^\W\d_]"
_WORD = re.compile(rf"{_LETTER}+")
# A piece of lost letters alone. İş (work) and işə are words and no piece.
_PIECE = re.compile(rf"[(\"'«\[]*(?!İşə?(?!{_LETTER}))[{_LOST}]{{1,4}}[)\"'».,;:!?\]-]*")
# With the space before it, for a search that begins with a plain class passes over other text quickly.
_SIGN = re.compile(rf"[ \u00a0\n][(\"'«\[]?(?:[{_LOST}]{{1,4}}|{_LETTER} {_LETTER} {_LETTER} {_LETTER})(?![\w])")
_AROUND = "()\"'«».,;:!?[]-"
_ODD = re.compile(r"[\t\u00a0\u2000-\u200a\u202f\u3000]")
_LONGEST = 16  # pieces of one word: "m ə s ə l ə l ə r i n d ə n"
_ORDER = 5  # letters of context, the one asked for included
_MIX = 0.7  # how much the list counts against the letters
_LONGEST_CHAIN = 4000  # pieces; no sentence of a law is longer
# "M a d d ə   7 5 ." has its number spaced as well.
# A second font may also come out line by line: "madd\nə\nsind\nə\ngöst".
_OWN_LINE = re.compile(
    rf"(?<={_LETTER})(?<!\n[{_LOST}]) *\r?\n([{_LOST}]{{1,4}}) *\r?\n(?={_LETTER})(?![{_LOST}]{{1,4}}(?:\n|$))"
)
_LINE_END_HYPHEN = re.compile(r"[-\u00ad][ \u00a0]*\r?\n")
_MAY_BREAK = re.compile("\n(?<=[-\u00ad \u00a0\r].)", re.DOTALL)  # begins with one character: a quick search
_SPACED_NUMBER = re.compile(r"(?<=\w)( {2,}\d(?: \d)+)(?: (?=[.:)])|(?=[.:)]| {2}|$))")
_BROKEN = re.compile(rf"({_LETTER}{{2,}})(?:-|\u00ad)[ \u00a0]*\r?\n[ \u00a0]*([a-zçəğıöşü]{_LETTER}+)(?![\w-])")
_GLUED = re.compile(r"(?<![\w.(=@/#-])[A-Za-zÇƏĞİÖŞÜçəğıöşü]+[a-zçəğıöşü][A-ZÇƏĞİÖŞÜ][a-zçəğıöşü]+(?![\w(=@/-])")
_SEAM = re.compile(r"(?<=[a-zçəğıöşü])(?=[A-ZÇƏĞİÖŞÜ])")
_OURS = re.compile("[çəğıöşüÇƏĞİÖŞÜ]")
_MAY_BE_SEAM = re.compile("[A-ZÇƏĞİÖŞÜ](?<=[a-zçəğıöşü].)")
_SHORTEST_PART = 4  # letters; shorter parts are prefixes and names of brands (inşAllah, azərEnerji)
DAMAGED = 3  # so many lone ə, ş, ğ, ... (and one word in 200) make a text one that lost letters


@cache
def word_counts() -> Mapping[str, int]:
    """The list of words (lower case) with their counts; stop words that it lacks count once."""
    counts = dict.fromkeys(STOP_WORDS, 1)
    for line in WORDS_FILE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            word, _, count = line.partition("\t")
            counts[word] = int(count)
    return counts


class _Costs:
    """What a word costs, in nats: the list, words of the text itself, and letters given the ones before."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._letters: list[dict[str, dict[str, float]]] = [{} for _ in range(_ORDER)]
        for word, count in counts.items():
            framed, weight = f"^{word}$", 1 + math.log(count)
            for at in range(1, len(framed)):
                for order in range(min(_ORDER, at + 1)):
                    context = framed[at - order : at]
                    nexts = self._letters[order].get(context)
                    if nexts is None:
                        nexts = self._letters[order][context] = {}
                    nexts[framed[at]] = nexts.get(framed[at], 0) + weight
        self._sums = [
            {context: (sum(nexts.values()), len(nexts)) for context, nexts in level.items()} for level in self._letters
        ]

    def letters(self, word: str) -> float:
        """-log P of the letters of a word and its end (Witten-Bell between the orders)."""
        framed, cost = f"^{word}$", 0.0
        for at in range(1, len(framed)):
            chance = 1 / 60
            for order in range(_ORDER):
                context = framed[max(0, at - order) : at]
                if len(context) < order or context not in self._sums[order]:
                    break
                total, kinds = self._sums[order][context]
                chance = (self._letters[order][context].get(framed[at], 0) + kinds * chance) / (total + kinds)
            cost -= math.log(chance)
        return cost


@cache
def _base_costs() -> _Costs:
    return _Costs(word_counts())


@lru_cache(maxsize=1 << 17)
def _letter_cost(word: str) -> float:
    return _base_costs().letters(word)


def mend_spaces(text: str) -> tuple[str, int]:
    """(text with the words of damaged lines put together, spaces taken out); other lines stay as they are.

    A line counts as damaged by lone lost letters or by four single letters in a row. Unless the whole text is damaged, a
    cut is accepted only when every word put together is a known one.
    """
    if not _SIGN.search(" " + text):
        return text, 0
    removed = 0
    if len(_OWN_LINE.findall(text)) >= DAMAGED:
        text, removed = _OWN_LINE.subn(r" \1 ", text)
    lines = text.split("\n")
    chains: list[tuple[int, list[str], list[bool]]] = []
    whole: Counter[str] = Counter()
    pieces = 0
    for number, line in enumerate(lines):
        if not _SIGN.search(" " + line):
            whole.update(_WORD.findall(line))
            continue
        tokens = _ODD.sub(" ", line).split(" ")
        lost = [bool(token) and _PIECE.fullmatch(token) is not None for token in tokens]
        joins = [_may_join(tokens, lost, at) for at in range(len(tokens) - 1)]
        pieces += sum(lost)
        chains.append((number, tokens, joins))
        for at, token in enumerate(tokens):
            if not (joins[at - 1 : at] or [False])[0] and not (at < len(joins) and joins[at]):
                whole.update(_WORD.findall(token))
    damaged = pieces >= DAMAGED and pieces * 200 >= sum(whole.values())
    own = Counter()
    for word, count in whole.items():
        own[lower(word)] += count
    cutter = _Cutter(own)
    for number, tokens, joins in chains:
        if any(joins):
            mended, count = cutter.line(tokens, joins, damaged)
            if count:
                lines[number] = mended
                removed += count
    return "\n".join(lines), removed


def _may_join(tokens: list[str], lost: list[bool], at: int) -> bool:
    """Whether the single space after token `at` may be damage."""
    one, two = tokens[at], tokens[at + 1]
    if not one or not two or not one[-1].isalpha() or not two[0].isalpha():
        return False
    return lost[at] or lost[at + 1] or (len(one.lstrip("(\"'«[")) == 1 and len(two.rstrip(".,;:!?)\"'»]")) == 1)


class _Cutter:
    """Cuts chains of pieces into words; `own` counts the words that stand whole in the text."""

    def __init__(self, own: Mapping[str, int]) -> None:
        self.known, self.own = word_counts(), own
        self.total = sum(self.known.values()) + sum(own.values())
        self.memory: dict[str, float] = {}

    def cost(self, word: str) -> float:
        """Cost of a word with what punctuation it carries, in any case."""
        if word not in self.memory:
            cost = 0.0
            for part in _WORD.findall(word):
                small = lower(part).replace("ә", "ə")
                count = self.known.get(small, 0) + self.own.get(small, 0) if len(small) > 1 or small == "o" else 0
                cost -= math.log(_MIX * count / self.total + (1 - _MIX) * math.exp(-_letter_cost(small)) + 1e-300)
            self.memory[word] = cost
        return self.memory[word]

    def line(self, tokens: list[str], joins: list[bool], damaged: bool) -> tuple[str, int]:
        """One line put together again, and how many spaces went."""
        result, removed, begin, spaced = [tokens[0]], 0, 0, False
        for at in range(1, len(tokens) + 1):
            if at < len(tokens) and joins[at - 1]:
                continue
            chain = tokens[begin:at]
            if len(chain) > 1:
                words = self.cut(chain) if len(chain) < _LONGEST_CHAIN else chain
                lost = any(map(_PIECE.fullmatch, chain))
                if (damaged and lost) or self.certain(chain, words):
                    removed += len(chain) - len(words)
                    spaced |= len(chain) >= len(words) + _SHORTEST_PART - 1
                    chain = words
            result[-1:] = [" ".join(chain)]
            if at < len(tokens):
                result.append(tokens[at])
            begin = at
        text = " ".join(result)
        if spaced:
            text = _SPACED_NUMBER.sub(lambda match: "  " + match.group(1).replace(" ", ""), text)
        return text, removed

    def cut(self, chain: list[str]) -> list[str]:
        """The cheapest words that the pieces make."""
        best, back = [0.0], [0]
        for end in range(1, len(chain) + 1):
            choices = []
            word = ""
            for begin in range(end - 1, max(-1, end - 1 - _LONGEST), -1):
                word = chain[begin] + word
                if len(word) > 60 and begin < end - 1:
                    break
                choices.append((best[begin] + self.cost(word), begin))
            cost, begin = min(choices)
            best.append(cost)
            back.append(begin)
        words, end = [], len(chain)
        while end:
            words.append("".join(chain[back[end] : end]))
            end = back[end]
        return words[::-1]

    def certain(self, chain: list[str], words: list[str]) -> bool:
        """Whether every word that was put together is a known one, and some piece of it could not stand alone."""
        whole = set(chain)
        made = [lower(part) for word in words if word not in whole for part in _WORD.findall(word)]
        apart = [lower(token.strip(_AROUND)) for token in chain if not _PIECE.fullmatch(token)]
        if apart and all(self.is_known(token) for token in apart):  # "Ə sən" (hey, you) is not əsən
            return False
        return bool(made) and all(map(self.is_known, made))

    def is_known(self, word: str) -> bool:
        """Whether a word of two letters or more, or o, is in the list or stands in the text."""
        return (len(word) > 1 or word == "o") and (word in self.known or word in self.own)


def join_broken(text: str) -> tuple[str, int]:
    """(text with words broken at a line end put together, how many): after a soft hyphen, or where the whole is known."""
    if not _MAY_BREAK.search(text) or not _LINE_END_HYPHEN.search(text):
        return text, 0
    known = word_counts()
    own = set(_WORD.findall(text))  # words that stand whole elsewhere in the text
    joined = 0

    def join(match: re.Match) -> str:
        nonlocal joined
        first, second = match.groups()
        soft = match.group()[len(first)] == "\u00ad"
        whole = first + second
        if not soft and lower(whole) not in known and whole not in own:
            return match.group()
        joined += 1
        return whole

    return _BROKEN.sub(join, text), joined


def split_glued(text: str) -> tuple[str, int]:
    """(text with words that ran together cut, how many cuts), where a capital follows a small letter in a word.

    Certain only when each part is a known word, or a run of known words, of four letters at least, and one of them has a
    letter that English lacks: JavaScript and inşAllah stay.
    """
    if not _MAY_BE_SEAM.search(text):
        return text, 0
    cuts = 0

    def split(match: re.Match) -> str:
        nonlocal cuts
        parts = _SEAM.split(match.group())
        if any(len(part) < _SHORTEST_PART for part in parts) or not _OURS.search(match.group()):
            return match.group()
        words: list[str] = []
        for part in parts:
            words += (found := _known_words(part))
            if not found:
                return match.group()
        cuts += len(words) - 1
        return " ".join(words)

    return _GLUED.sub(split, text), cuts


def _known_words(part: str) -> list[str]:
    """The part as one known word, or as two of them; [] when it is neither."""
    known = word_counts()
    if lower(part) in known:
        return [part]
    for at in range(_SHORTEST_PART, len(part) - _SHORTEST_PART + 1):
        if lower(part[:at]) in known and lower(part[at:]) in known:
            return [part[:at], part[at:]]
    return []


def count_words(texts: Iterable[str], least: int = 1) -> Counter[str]:
    """Words of lower-case letters, at least two long, that occur `least` times."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word in _WORD.findall(lower(text)) if len(word) > 1)
    return Counter({word: count for word, count in counts.items() if count >= least})


def main() -> None:
    """Print the list of words of the given .jsonl files."""
    from common.files import read_jsonl

    counts = count_words(record["text"] for file in sys.argv[1:] for _, record in read_jsonl(file))
    print("# Words of data/demo/corpus (CC0) with their counts: python -m language.spacing data/demo/corpus/*.jsonl")
    for word, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        print(f"{word}\t{count}")


if __name__ == "__main__":
    main()
