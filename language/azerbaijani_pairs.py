"""Make the suite of Azerbaijani minimal pairs: by hand and from morphology, checked, with a sheet for a speaker.

    python -m language.azerbaijani_pairs                    write language/pairs/azerbaijani.csv again
    python -m language.azerbaijani_pairs --sheet SHEET.csv  a sheet with every pair, to be filled in by a speaker
    python -m language.azerbaijani_pairs --read SHEET.csv   take the answers over; rejected pairs leave the suite

The pairs by hand are language/pairs/azerbaijani_by_hand.tsv, the frames of the generated ones are in
language/azerbaijani_frames.py, the answers are kept in language/pairs/azerbaijani_verdicts.tsv. Pairs with one `group` are
one frame with other words. The suite is the same bytes for the same three files.
"""

import argparse
import csv
import hashlib
import io
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError, command
from common.files import ROOT, write_text
from language.azerbaijani import LANGUAGE
from language.azerbaijani_frames import PHENOMENA

FOLDER = ROOT / "language" / "pairs"
SUITE, BY_HAND, VERDICTS = (FOLDER / f"azerbaijani{ending}" for ending in (".csv", "_by_hand.tsv", "_verdicts.tsv"))
GENERATED = 60  # pairs of each phenomenon that are generated, beside those by hand
COLUMNS = ("id", "good_sentence", "bad_sentence", "phenomenon", "group", "source", "checked")
ASKED = ("good is correct (yes/no)", "bad is wrong (yes/no)", "remark")
SIGNS = set(" ,.?!:–-")


class Pair(NamedTuple):
    """A correct sentence and a wrong one; `group` names the frame, `source` is hand or generated."""

    good: str
    bad: str
    phenomenon: str
    group: str
    source: str

    @property
    def id(self) -> str:
        """A digest of both sentences, by which a speaker's answer is found again."""
        return hashlib.sha256(f"{self.good}\n{self.bad}".encode()).hexdigest()[:10]


def capitalised(sentence: str) -> str:
    """The sentence with a capital at its beginning: i becomes İ."""
    return LANGUAGE.upper_first.get(sentence[0], sentence[0].upper()) + sentence[1:]


def difference(good: str, bad: str) -> str:
    """What tells two sentences apart: "word" (one is replaced, added or missing), "order" (two neighbours), "" for more."""
    a, b = good.split(), bad.split()
    while a and b and a[0] == b[0]:
        a, b = a[1:], b[1:]
    while a and b and a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    if (a or b) and len(a) <= 1 and len(b) <= 1:
        return "word"
    lower = [[LANGUAGE.lower_first.get(w[0], w[0].lower()) + w[1:] for w in words] for words in (a, b)]
    return "order" if len(a) == 2 and lower[0] == lower[1][::-1] else ""


def fault_of(pair: Pair) -> str:
    """Why a pair cannot be in the suite; "" if nothing is wrong with it."""
    for sentence in (pair.good, pair.bad):
        small = LANGUAGE.alphabet + LANGUAGE.alphabet_upper
        if odd := sorted(set(sentence) - set(small) - SIGNS):
            return f"{sentence!r} has {', '.join(odd)}, which is no letter of the language"
        if sentence[:1] not in LANGUAGE.alphabet_upper or sentence[-1:] not in ".?!" or "  " in sentence:
            return f"{sentence!r} does not begin with a capital and end with a mark"
    if not difference(pair.good, pair.bad):
        return f"{pair.good!r} and {pair.bad!r} do not differ in one place"
    return ""


def spread(candidates: Sequence[Pair], wanted: int) -> list[Pair]:
    """`wanted` of the candidates, drawn by a fixed seed and as evenly as possible from their groups."""
    draw = random.Random(candidates[0].phenomenon)
    groups: dict[str, list[Pair]] = {}
    for pair in draw.sample(candidates, len(candidates)):
        groups.setdefault(pair.group, []).append(pair)
    chosen: list[Pair] = []
    while len(chosen) < wanted and any(groups.values()):
        for name in list(groups):
            if groups[name] and len(chosen) < wanted:
                chosen.append(groups[name].pop())
    return sorted(chosen, key=lambda pair: (pair.group, pair.good, pair.bad))


def by_hand() -> list[Pair]:
    """The pairs of BY_HAND: phenomenon, correct sentence, wrong sentence, with tabs between them."""
    found = []
    for number, line in enumerate(BY_HAND.read_text(encoding="utf-8").splitlines(), 1):
        if line and not line.startswith("#"):
            cells = line.split("\t")
            if len(cells) != 3 or cells[0] not in PHENOMENA:
                raise UserError(f"{BY_HAND}, line {number}: expected a known phenomenon and two sentences, with tabs between.")
            found.append(Pair(cells[1], cells[2], cells[0], f"hand-{number}", "hand"))
    return found


def verdicts() -> dict[str, bool]:
    """{id: whether a speaker accepts the pair}."""
    if not VERDICTS.exists():
        return {}
    rows = [line.split("\t") for line in VERDICTS.read_text(encoding="utf-8").splitlines() if line]
    return {row[0]: row[1] == "yes" for row in rows}


def all_pairs() -> list[Pair]:
    """Every pair before the speaker's answers, in order of phenomena. Raises UserError for one with a fault."""
    hand, found = by_hand(), []
    for name, make in PHENOMENA.items():
        made = {}
        for group, good, bad in make():
            pair = Pair(capitalised(good), capitalised(bad), name, f"{name}-{group}", "generated")
            made.setdefault((pair.good, pair.bad), pair)
        found += [pair for pair in hand if pair.phenomenon == name] + spread(list(made.values()), GENERATED)
    unique = list({(pair.good, pair.bad): pair for pair in reversed(found)}.values())[::-1]
    if faults := [fault for pair in unique if (fault := fault_of(pair))]:
        raise UserError(f"{faults[0]}. Correct the frame or the line.")
    return unique


def table_of(rows: Iterable[Iterable[str]]) -> str:
    """Rows as the text of a csv file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def suite() -> str:
    """The content of SUITE: all pairs but those that a speaker rejected."""
    said = verdicts()
    rows = [
        (pair.id, pair.good, pair.bad, pair.phenomenon, pair.group, pair.source, "yes" if pair.id in said else "no")
        for pair in all_pairs()
        if said.get(pair.id, True)
    ]
    return table_of([COLUMNS, *rows])


def sheet() -> str:
    """The content of a sheet: every pair without an answer, with empty columns for it."""
    said = verdicts()
    rows = [(p.id, p.phenomenon, p.good, p.bad, "", "", "") for p in all_pairs() if p.id not in said]
    return table_of([("id", "phenomenon", "good", "bad", *ASKED), *rows])


def read_sheet(path: Path) -> dict[str, tuple[bool, str]]:
    """{id: (accepted, remark)} of the rows that are filled in. Raises UserError, with the line, for any other answer."""
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Save the sheet as csv in UTF-8.") from None
    if rows and not {"id", *ASKED} <= set(rows[0]):
        raise UserError(f"{path}: expected the columns id, {', '.join(ASKED)}. Take the sheet that --sheet wrote.")
    known, found = {pair.id for pair in all_pairs()}, {}
    for line, row in enumerate(rows, 2):
        answers = [(row[name] or "").strip().lower() for name in ASKED[:2]]
        if not any(answers):
            continue
        if not set(answers) <= {"yes", "no"}:
            raise UserError(f"{path}, line {line}: expected yes or no in both columns, found {answers}. Correct the line.")
        if row["id"] not in known:
            raise UserError(f"{path}, line {line}: no pair {row['id']} in the suite. Take a new sheet with --sheet.")
        found[row["id"]] = (answers == ["yes", "yes"], " ".join((row[ASKED[2]] or "").split()))
    return found


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m language.azerbaijani_pairs", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sheet", help="write a sheet for a speaker to this .csv")
    parser.add_argument("--read", help="a sheet that a speaker filled in")
    options = parser.parse_args(arguments)
    if options.sheet:
        write_text(options.sheet, sheet())
        print(options.sheet)
        return
    if options.read:
        told = read_sheet(Path(options.read))
        before = VERDICTS.read_text(encoding="utf-8").splitlines() if VERDICTS.exists() else []
        kept = [line for line in before if line and line.split("\t")[0] not in told]
        lines = [*kept, *(f"{name}\t{'yes' if good else 'no'}\t{remark}" for name, (good, remark) in told.items())]
        write_text(VERDICTS, "\n".join(lines) + "\n")
        print(f"{len(told)} answers, {sum(not good for good, _ in told.values())} pairs rejected")
    write_text(SUITE, suite())
    print(SUITE)


if __name__ == "__main__":
    sys.exit(main())
