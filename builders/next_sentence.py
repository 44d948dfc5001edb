"""AZE-NSP's kind: pairs of sentences from documents, with a bound on what surface cues alone can tell.

The pairs themselves are made by tasks/next_sentence.py, which `task.documents` calls too. Here documents of any format are
read, near duplicates among them become one group, and every construction is held against the cues: the set is refused
where lengths, marks, capitals and digits tell true continuations from wrong ones in more than `cue_bound` of the test pairs.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from builders.difficulty import learner, surface_of
from builders.groups import near_groups
from builders.sets import Built, aside, find_inputs
from common.errors import UserError
from corpus.matching.signatures import key_digest
from corpus.reading.sources import Reject, find_sources, read_file
from language.base import Language
from tasks.load import SPLITS
from tasks.next_sentence import NEGATIVES, NEXT, TRUE, build_next_sentence
from tasks.splits import group_name, split_of


def build(settings: dict[str, Any], language: Language) -> Built:
    """The pairs of settings["files"], split by document. Raises UserError where cues tell more than the bound allows."""
    own = settings["next_sentence"]
    put_aside: list[dict[str, Any]] = []
    documents = read_any(find_inputs(settings["files"]), language, put_aside)
    counts: Counter[str] = Counter()
    kept = grouped(documents, language, own["near_duplicates"], put_aside, counts)
    examples = build_next_sentence(
        kept, language, settings["seed"], own["max_pairs"], own["negatives"] or NEGATIVES, settings["shares"], counts
    )
    parts: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for example in examples:
        parts[SPLITS[split_of(example["group"], settings["shares"])]].append({**example, "group": group_name(example["group"])})
    told = cues(parts["train"], parts["test"])
    rows = [
        (name, f"{one['pairs']:,}", f"{100 * one['accuracy']:.1f}", f"{100 * own['cue_bound']:.1f}")
        for name, one in told.items()
    ]
    built = Built("pair", parts, put_aside, {"positive": NEXT, "next_sentence": True, "metric": "accuracy"}, by="construction")
    built.counts, built.facts = dict(counts), {"cues": told}
    built.sections.append(
        ("Surface cues", [("wrong pairs made as", "test pairs, half of them true", "accuracy of cues", "bound"), *rows])
    )
    print(
        *(f"cues, {name}: {100 * one['accuracy']:.1f} % of {one['pairs']:,} test pairs" for name, one in told.items()), sep="\n"
    )
    _refuse(told, own)
    return built


def read_any(files: Sequence[Path], language: Language, put_aside: list[dict[str, Any]]) -> list[dict[str, str]]:
    """{"id", "text", "source"} of every document of files of any format that a corpus is made of."""
    documents, seen = [], set()
    named: Counter[str] = Counter()
    for path in files:
        (source,), _ = find_sources(path)
        named[source.name] += 1
        name = source.name if named[source.name] == 1 else f"{source.name}#{named[source.name]}"
        options = {**source.options, "language": language.name}  # for the names of a Wikipedia
        for record in read_file(source.files[0], source.labels[0], options):
            if isinstance(record, Reject):
                put_aside.append(aside(record.file, record.line, record.reason, record.raw))
                continue
            place = f"{name}:{record.line}"
            identity = place if record.id is None or record.id in seen else str(record.id)
            seen.add(identity)
            documents.append({"id": identity, "text": record.text, "source": name})
    return documents


def grouped(
    documents: Sequence[dict[str, str]],
    language: Language,
    agreement: float | None,
    put_aside: list[dict[str, Any]],
    counts: Counter[str],
) -> list[dict[str, str]]:
    """Documents that differ, each with its "group": near duplicates have the first one's id; exact ones are set aside."""
    first: dict[bytes, str] = {}
    kept, keys = [], []
    for document in documents:
        key = language.fold_key(document["text"])
        twin = first.setdefault(key_digest(key), document["id"])
        if twin != document["id"]:
            put_aside.append(aside(document["source"], None, "the same document as another", {"as": twin}, document["id"]))
            continue
        kept.append(document)
        keys.append(key)
    for place, leader in enumerate(near_groups(keys, agreement)):
        kept[place] = {**kept[place], "group": kept[leader]["id"]}
        counts["documents grouped with a near duplicate"] += leader != place
    return kept


def cues(train: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """{construction: {"pairs", "accuracy"}}: how well surface cues tell it from true continuations.

    One classifier a construction learns from all its pairs and all true ones of train, weighed alike. Accuracy is the mean
    of both sides of test, as on half and half; "pairs" counts twice the smaller side.
    """
    made = dict.fromkeys(example["construction"] for example in [*train, *test] if example["construction"] != TRUE)
    found = {}
    for kind in sorted(made):
        inside, outside = ([e for e in part if e["construction"] in (kind, TRUE)] for part in (train, test))
        sides = Counter(example["label"] for example in outside)
        if len(sides) < 2 or len({example["label"] for example in inside}) < 2:
            found[kind] = {"pairs": 0, "accuracy": 1.0}
            continue
        model = learner().fit([surface_of(e) for e in inside], [e["label"] for e in inside])
        gold = np.array([e["label"] for e in outside])
        right = model.predict([surface_of(e) for e in outside]) == gold
        accuracy = float(np.mean([right[gold == side].mean() for side in sides]))
        found[kind] = {"pairs": 2 * min(sides.values()), "accuracy": round(accuracy, 4)}
    return found


def _refuse(told: dict[str, dict[str, float]], own: dict[str, Any]) -> None:
    few = {name: one["pairs"] for name, one in told.items() if one["pairs"] < own["cue_pairs"]}
    if few:
        name, pairs = min(few.items(), key=lambda item: item[1])
        raise UserError(
            f"next sentence: {pairs:,} test pairs of {name}, {own['cue_pairs']:,} are asked for before a cue can be judged. "
            "Give more text, a larger test part (shares), or set next_sentence.cue_pairs lower and say so with the scores."
        )
    over = {name: one["accuracy"] for name, one in told.items() if one["accuracy"] > own["cue_bound"]}
    if over:
        name, accuracy = max(over.items(), key=lambda item: item[1])
        raise UserError(
            f"next sentence: surface cues alone tell {name} from true continuations in {100 * accuracy:.1f} % of the test "
            f"pairs, above the bound of {100 * own['cue_bound']:.1f} %. Give text with longer documents, leave the "
            f"construction out (next_sentence.negatives.{name}=0), or raise next_sentence.cue_bound and say so with the scores."
        )
