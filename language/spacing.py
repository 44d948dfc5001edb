"""Repair of spaces that a PDF inserted into words ("m ə hk ə m ə y ə", "q a n u n") or left out between them.

    python -m language.spacing --language azerbaijani data/demo/corpus/*.jsonl > language/azerbaijani_words.tsv

writes the word list that decides; a pack without one has no such repair. Fonts that lack letters of a language (of
Azerbaijani ə, ş, ğ, ı and İ) took these from a second font, and extraction leaves a space on both sides of each letter: in
"madd ə sin ə uy ğ un olaraq" three of the spaces are real. The chosen segmentation is the cheapest one, where a known word
costs by its frequency and an unknown one by its letters.
"""

import argparse
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property, lru_cache

from common.errors import UserError, command
from common.files import read_jsonl
from language.base import Language, load_language

_LETTER = r"[^\W\d_]"
_NOTHING = r"[^\s\S]"  # a class that no character is in
_WORD = re.compile(rf"{_LETTER}+")
_AROUND = "()\"'«».,;:!?[]-"
_ODD = re.compile(r"[\t\u00a0\u2000-\u200a\u202f\u3000]")
_LONGEST = 16  # fragments in one word: "m ə s ə l ə l ə r i n d ə n"
_ORDER = 5  # letters of context, including the predicted one
_MIX = 0.7  # weight of the word list against the letters
_LONGEST_CHAIN = 4000  # fragments; no sentence of a law is longer
_LINE_END_HYPHEN = re.compile(r"[-\u00ad][ \u00a0]*\r?\n")
_MAY_BREAK = re.compile("\n(?<=[-\u00ad \u00a0\r].)", re.DOTALL)  # begins with one character, for a fast search
# "M a d d ə   7 5 ." has a spaced number too.
_SPACED_NUMBER = re.compile(r"(?<=\w)( {2,}\d(?: \d)+)(?: (?=[.:)])|(?=[.:)]| {2}|$))")
_SHORTEST_PART = 4  # letters; shorter parts are prefixes and brand names (inşAllah, azərEnerji)
DAMAGED = 3  # a text with this many single ə, ş, ğ, ... (and one in 200 words) counts as damaged


class _Costs:
    """Cost of a word in nats: by the list, the words of the text, and letters given the preceding ones."""

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
        """-log P of the letters of a word and its end (Witten-Bell smoothing over the orders)."""
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


class Spacing:
    """The repair for one language that has a word list. Raises UserError for a pack without one."""

    def __init__(self, language: Language) -> None:
        if language.words is None:
            raise UserError(
                f"language={language.name}: its pack has no word list (docs/languages.md). Make one and set the field `words`."
            )
        self.language = language
        self.letters = {word for word in language.stop_words if len(word) == 1}  # words of one letter
        twins = {old: language.lookalikes[old] for old in language.lone_lookalikes}
        self._twins = {old: new for old, new in twins.items() if old == language.lower(old)}
        lost = f"[{language.lost_letters}{''.join(twins)}]" if language.lost_letters else _NOTHING
        own = "|".join(language.lost_words)
        own = rf"(?!(?:{own})(?!{_LETTER}))" if own else ""
        # A fragment that consists of lost letters. İş (work) and işə are words of Azerbaijani, not fragments.
        self._piece = re.compile(rf"(?<![(\"'«\[])[(\"'«\[]*+{own}{lost}{{1,4}}[)\"'».,;:!?\]-]*")
        # The space before it is included, because a search that begins with a plain class skips other text quickly.
        self._sign = re.compile(rf"[ \u00a0\n][(\"'«\[]?(?:{lost}{{1,4}}|{_LETTER} {_LETTER} {_LETTER} {_LETTER})(?![\w])")
        # A second font may also come out line by line: "madd\nə\nsind\nə\ngöst".
        self._own_line = re.compile(
            rf"(?<={_LETTER})(?<!\n{lost}) *\r?\n({lost}{{1,4}}) *\r?\n(?={_LETTER})(?!{lost}{{1,4}}(?:\n|$))"
        )
        small, large = ("".join(c for c in letters if c > "\x7f") for letters in (language.alphabet, language.alphabet_upper))
        # Because of the look-behind, a long word is tried only once, at its beginning.
        self._broken = re.compile(
            rf"(?<!{_LETTER})({_LETTER}{{2,}})(?:-|\u00ad)[ \u00a0]*\r?\n[ \u00a0]*([a-z{small}]{_LETTER}+)(?![\w-])"
        )
        self._glued = re.compile(rf"(?<![\w.(=@/#-])[A-Za-z{large}{small}]+[a-z{small}][A-Z{large}][a-z{small}]+(?![\w(=@/-])")
        self._seam = re.compile(f"(?<=[a-z{small}])(?=[A-Z{large}])")
        self._may_be_seam = re.compile(f"[A-Z{large}](?<=[a-z{small}].)")
        self._ours = re.compile(f"[{small}{large}]" if small else _NOTHING)

    @cached_property
    def words(self) -> Mapping[str, int]:
        """The word list (lower case) with counts; stop words that it lacks count once."""
        counts = dict.fromkeys(sorted(self.language.stop_words), 1)
        for line in self.language.words.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                word, _, count = line.partition("\t")
                counts[word] = int(count)
        return counts

    @cached_property
    def _longest(self) -> int:
        """Letters of the longest word of the list; a string longer than two of them is not two words."""
        return max(map(len, self.words))

    @cached_property
    def letter_cost(self) -> Callable[[str], float]:
        """The cost of a word by its letters, cached."""
        return lru_cache(maxsize=1 << 17)(_Costs(self.words).letters)

    def small(self, word: str) -> str:
        """The word in lower case, with look-alike letters replaced by ours."""
        word = self.language.lower(word)
        for old, new in self._twins.items():
            word = word.replace(old, new)
        return word

    def is_piece(self, token: str) -> bool:
        """Whether a token consists of lost letters."""
        return self._piece.fullmatch(token) is not None

    def join_split(self, text: str) -> tuple[str, int]:
        """Join the words of damaged lines, removing spaces; other lines are unchanged. Returns (text, spaces removed).

        A line is damaged if it has single lost letters or four single letters in a row. Unless the whole text is damaged, a
        segmentation is accepted only if every joined word is known.
        """
        if not self._sign.search(" " + text):
            return text, 0
        removed = 0
        if len(self._own_line.findall(text)) >= DAMAGED:
            text, removed = self._own_line.subn(r" \1 ", text)
        lines = text.split("\n")
        chains: list[tuple[int, list[str], list[bool]]] = []
        whole: Counter[str] = Counter()
        pieces = 0
        for number, line in enumerate(lines):
            if not self._sign.search(" " + line):
                whole.update(_WORD.findall(line))
                continue
            tokens = _ODD.sub(" ", line).split(" ")
            lost = [bool(token) and self.is_piece(token) for token in tokens]
            joins = [_may_join(tokens, lost, at) for at in range(len(tokens) - 1)]
            pieces += sum(lost)
            chains.append((number, tokens, joins))
            for at, token in enumerate(tokens):
                if not (joins[at - 1 : at] or [False])[0] and not (at < len(joins) and joins[at]):
                    whole.update(_WORD.findall(token))
        damaged = pieces >= DAMAGED and pieces * 200 >= sum(whole.values())
        own = Counter()
        for word, count in whole.items():
            own[self.language.lower(word)] += count
        cutter = _Cutter(self, own)
        for number, tokens, joins in chains:
            if any(joins):
                repaired, count = cutter.line(tokens, joins, damaged)
                if count:
                    lines[number] = repaired
                    removed += count
        return "\n".join(lines), removed

    def join_broken(self, text: str) -> tuple[str, int]:
        """Join words broken at a line end, after a soft hyphen or where the joined word is known: (text, words joined)."""
        if not _MAY_BREAK.search(text) or not _LINE_END_HYPHEN.search(text):
            return text, 0
        known = self.words
        own = set(_WORD.findall(text))  # undamaged words of the text
        joined = 0

        def join(match: re.Match) -> str:
            nonlocal joined
            first, second = match.groups()
            soft = match.group()[len(first)] == "\u00ad"
            whole = first + second
            if not soft and self.language.lower(whole) not in known and whole not in own:
                return match.group()
            joined += 1
            return whole

        return self._broken.sub(join, text), joined

    def split_glued(self, text: str) -> tuple[str, int]:
        """Cut words that ran together, where a capital follows a small letter; returns (text, number of cuts).

        A cut requires that each part is a known word of at least four letters, or a run of known words, and that one part
        has a letter that English lacks: JavaScript and inşAllah are not cut.
        """
        if not self._may_be_seam.search(text):
            return text, 0
        cuts = 0

        def split(match: re.Match) -> str:
            nonlocal cuts
            parts = self._seam.split(match.group())
            if any(len(part) < _SHORTEST_PART for part in parts) or not self._ours.search(match.group()):
                return match.group()
            words: list[str] = []
            for part in parts:
                words += (found := self._known_words(part))
                if not found:
                    return match.group()
            cuts += len(words) - 1
            return " ".join(words)

        return self._glued.sub(split, text), cuts

    def _known_words(self, part: str) -> list[str]:
        """The part as one known word, or as two; [] if it is neither."""
        known, lower = self.words, self.language.lower
        if lower(part) in known:
            return [part]
        if len(part) > 2 * self._longest:
            return []
        for at in range(_SHORTEST_PART, len(part) - _SHORTEST_PART + 1):
            if lower(part[:at]) in known and lower(part[at:]) in known:
                return [part[:at], part[at:]]
        return []


@cache
def spacing_of(language: Language) -> Spacing:
    """The repair of a language, created once."""
    return Spacing(language)


def _may_join(tokens: list[str], lost: list[bool], at: int) -> bool:
    """Whether the single space after token `at` may be damage."""
    one, two = tokens[at], tokens[at + 1]
    if not one or not two or not one[-1].isalpha() or not two[0].isalpha():
        return False
    return lost[at] or lost[at + 1] or (len(one.lstrip("(\"'«[")) == 1 and len(two.rstrip(".,;:!?)\"'»]")) == 1)


class _Cutter:
    """Joins chains of fragments into words; `own` counts the undamaged words of the text."""

    def __init__(self, spacing: "Spacing", own: Mapping[str, int]) -> None:
        self.spacing, self.known, self.own = spacing, spacing.words, own
        self.lower = spacing.language.lower
        self.total = sum(self.known.values()) + sum(own.values())
        self.memory: dict[str, float] = {}

    def cost(self, word: str) -> float:
        """Cost of a word including its punctuation, in any case."""
        if word not in self.memory:
            cost = 0.0
            for part in _WORD.findall(word):
                small = self.spacing.small(part)
                count = (
                    self.known.get(small, 0) + self.own.get(small, 0) if len(small) > 1 or small in self.spacing.letters else 0
                )
                cost -= math.log(_MIX * count / self.total + (1 - _MIX) * math.exp(-self.spacing.letter_cost(small)) + 1e-300)
            self.memory[word] = cost
        return self.memory[word]

    def line(self, tokens: list[str], joins: list[bool], damaged: bool) -> tuple[str, int]:
        """One repaired line, and the number of spaces removed."""
        result, removed, begin, spaced = [tokens[0]], 0, 0, False
        for at in range(1, len(tokens) + 1):
            if at < len(tokens) and joins[at - 1]:
                continue
            chain = tokens[begin:at]
            if len(chain) > 1:
                words = self.cut(chain) if len(chain) < _LONGEST_CHAIN else chain
                lost = any(map(self.spacing.is_piece, chain))
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
        """The cheapest segmentation of the fragments into words."""
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
        """Whether every joined word is known, and one of its fragments cannot be a word."""
        whole = set(chain)
        made = [self.lower(part) for word in words if word not in whole for part in _WORD.findall(word)]
        apart = [self.lower(token.strip(_AROUND)) for token in chain if not self.spacing.is_piece(token)]
        if apart and all(self.is_known(token) for token in apart):  # "Ə sən" (hey, you) is not əsən
            return False
        return bool(made) and all(map(self.is_known, made))

    def is_known(self, word: str) -> bool:
        """Whether a word of two letters or more, or a word of one, is in the list or in the text."""
        return (len(word) > 1 or word in self.spacing.letters) and (word in self.known or word in self.own)


def count_words(texts: Iterable[str], language: Language, least: int = 1) -> Counter[str]:
    """Words of lower-case letters, at least two long, that occur at least `least` times."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word in _WORD.findall(language.lower(text)) if len(word) > 1)
    return Counter({word: count for word, count in counts.items() if count >= least})


@command
def main(arguments: list[str] | None = None) -> None:
    """Print the word list of the given .jsonl files."""
    parser = argparse.ArgumentParser(
        prog="python -m language.spacing", description="Words and their counts, for the `words` of a pack."
    )
    parser.add_argument("files", nargs="+", help='.jsonl or .jsonl.gz, one {"text"} a line')
    parser.add_argument("--language", required=True, help="name or code of a pack in language/")
    options = parser.parse_args(arguments)
    texts = (record["text"] for file in options.files for _, record in read_jsonl(file))
    counts = count_words(texts, load_language(options.language))
    print("# Words and their counts, made by python -m language.spacing")
    for word, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        print(f"{word}\t{count}")


if __name__ == "__main__":
    sys.exit(main())
