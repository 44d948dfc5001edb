"""WikiANN's kind (Pan et al. 2017, P17-1178): sentences with names, from the links of a Wikipedia dump, unchecked.

A link is a name of the type of the page that it leads to: from a table of titles that the user gives, else from words in the
names of the page's categories. Endings written after a link belong to the name if they are endings of the language; the
same name again in its article is tagged too. Sentences that would be half tagged are set aside: a capital outside every
name, a link whose page has no type. Files in conll are taken as they are, cleaned of doubles and split.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from builders.sets import Built, aside, dealt, find_inputs, read_rows
from builders.spans import sentences as sentences_of
from common.errors import UserError
from common.task_files import CONLL, format_of
from corpus.reading.sources import Reject, find_sources
from corpus.reading.wikipedia import Article, read_linked
from language.base import Language
from tasks.answers import is_ending
from tasks.base import fold
from tasks.records import load_task_file
from tasks.settings import TaskSettings
from tasks.splits import group_name
from tasks.tagging import WORDS

NONE = "O"  # in the table of types: a page that is no name
_INSIDE = "-'’"  # between a name and its ending

Names = dict[tuple[str, ...], str]  # words of a name: type


def build(settings: dict[str, Any], language: Language) -> Built:
    """The sentences of settings["files"], split by article. Raises UserError where no type is known for any page."""
    own = settings["ner_silver"]
    files = find_inputs(settings["files"])
    put_aside: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    dumps = [path for path in files if format_of(path) not in CONLL]
    sentences: list[dict[str, Any]] = []
    if dumps:
        types = page_types(dumps, own, language, counts)
        sentences += [s for path in dumps for s in _of_dump(path, types, own, language, put_aside, counts)]
    sentences = _chosen(_once(sentences, put_aside), own, settings["seed"], put_aside)
    given = [s for path in files if format_of(path) in CONLL for s in _of_conll(path, put_aside)]
    counts["sentences of the dumps"], counts["sentences in conll"] = len(sentences), len(given)
    kept = _once([*sentences, *given], put_aside)
    parts = dealt(kept, settings["shares"])
    types_found = Counter(tag[2:] for s in kept for tag in s["tags"] if tag.startswith("B-"))
    built = Built("tagging", parts, put_aside, {"metric": "entity_f1"}, dict(counts), by="tags")
    built.facts["names"] = dict(sorted(types_found.items()))
    built.sections.append(("Names", [("type", "number"), *((kind, f"{n:,}") for kind, n in sorted(types_found.items()))]))
    built.beware.append(
        "Silver: the tags come from links and from no person. Have a sample of them checked before you rely on it."
    )
    if dumps:
        built.beware.append("The sentences are Wikipedia's, which most encoders have read in pre-training.")
    return built


def also_read(settings: dict[str, Any]) -> list[Path]:
    """Files that decide about the set beside the material: the table of types."""
    return find_inputs(settings["ner_silver"]["types"], "ner_silver.types") if settings["ner_silver"]["types"] else []


# ---------------------------------------------------------------- types of pages


def page_types(files: Sequence[Path], own: Mapping[str, Any], language: Language, counts: Counter[str]) -> dict[str, str]:
    """{title: type} of every page whose type is known, redirects included."""
    types = {_title(title, language): kind for title, kind in _table(own["types"])}
    counts["titles with a type in the table"] = len(types)
    rules = [(kind, _beginnings(words)) for kind, words in (own["categories"] or language.wiki.types).items()]
    redirects: dict[str, str] = {}
    for path in files:
        for page in _pages_of(path, language):
            if isinstance(page, Reject):
                continue
            title = _title(page.title, language)
            if page.redirect:
                redirects[title] = _title(page.redirect, language)
            elif title not in types and (kind := type_by_categories(page.categories, rules, language)):
                types[title] = kind
                counts["pages with a type by their categories"] += 1
    for title, target in redirects.items():
        if title not in types and target in types:
            types[title] = types[target]
            counts["redirects to a page with a type"] += 1
    if not types:
        raise UserError(
            f"ner_silver: no page has a type. Give a table of titles and types (ner_silver.types=FILE with columns title and "
            f"type), or words of category names (ner_silver.categories={{PER: births}}), or fill in `types` of the wiki names "
            f"in the pack language/{language.name}.py."
        )
    return types


def type_by_categories(categories: Sequence[str], rules: Sequence[tuple[str, Sequence[str]]], language: Language) -> str | None:
    """The type that most of the categories say; None where none says one, or two types are said equally often.

    Of one category the first type counts of which a word begins so: people born in a town are no town.
    """
    votes: Counter[str] = Counter()
    for category in categories:
        words = language.lower(category).split()
        said = next((kind for kind, starts in rules if any(word.startswith(tuple(starts)) for word in words)), None)
        votes.update([said] if said else [])
    best = votes.most_common(2)
    return best[0][0] if best and (len(best) == 1 or best[0][1] > best[1][1]) else None


def _beginnings(words: Any) -> list[str]:
    return words.split() if isinstance(words, str) else [str(word) for word in words]


def _table(path: str | None) -> Iterator[tuple[str, str]]:
    if not path:
        return
    problems: list[dict[str, Any]] = []
    for file, line, row in read_rows(find_inputs(path, "ner_silver.types"), problems):
        if not row.get("title") or not row.get("type"):
            raise UserError(f"{file}, line {line}: expected columns title and type, both filled. Correct it.")
        yield str(row["title"]), str(row["type"]).strip()
    if problems:
        first = problems[0]
        raise UserError(f"ner_silver.types={path}: line {first['line']}: {first['reason']}. Correct the table.")


def _title(title: str, language: Language) -> str:
    """A title as MediaWiki compares it: blanks for underscores, its first letter a capital."""
    title = " ".join(title.replace("_", " ").split())
    return language.upper(title[:1]) + title[1:]


def _pages_of(path: Path, language: Language) -> Iterator[Article | Reject]:
    (source,), _ = find_sources(path)
    for file, label in zip(source.files, source.labels, strict=True):
        yield from read_linked(file, label, language)


# ---------------------------------------------------------------- sentences


def _of_dump(
    path: Path,
    types: Mapping[str, str],
    own: Mapping[str, Any],
    language: Language,
    put_aside: list[dict[str, Any]],
    counts: Counter[str],
) -> Iterator[dict[str, Any]]:
    for page in _pages_of(path, language):
        if isinstance(page, Reject):
            put_aside.append(aside(page.file, page.line, page.reason, page.raw))
            continue
        counts["redirects" if page.redirect else "articles"] += 1
        names = {} if page.redirect else names_of(page, types, language)
        for number, (begin, sentence) in enumerate(sentences_of(page.text, language)):
            links = [(a - begin, b - begin, target) for a, b, target in page.links if begin <= a and b <= begin + len(sentence)]
            made = tag(sentence, links, types, names, language)
            reason = made if isinstance(made, str) else doubtful(*made, own)
            identity = f"{page.title}#{number}"
            if reason:
                put_aside.append(aside(path.name, page.line, reason, sentence, identity))
                continue
            words, tags, _ = made
            yield {"id": identity, "words": words, "tags": tags, "group": group_name(_title(page.title, language))}


def names_of(page: Article, types: Mapping[str, str], language: Language) -> Names:
    """Names that an article has linked, and its own, by their words: what begins with a capital."""
    title = page.title.partition(" (")[0]
    said = [(title, page.title), *((page.text[a:b], target) for a, b, target in page.links)]
    names: Names = {}
    for text, target in said:
        words = tuple(WORDS.findall(text))
        kind = types.get(_title(target, language), NONE)
        if words and words[0][:1].isupper() and len(words[0]) > 1:
            names.setdefault(words, kind)
    return {words: kind for words, kind in names.items() if kind != NONE}


def tag(
    sentence: str, links: Sequence[tuple[int, int, str]], types: Mapping[str, str], names: Names, language: Language
) -> tuple[list[str], list[str], list[bool]] | str:
    """(words, tags, whether each is in a link whose page has no type), or why the sentence cannot be tagged."""
    found = list(WORDS.finditer(sentence))
    words, tags, untyped = [m.group() for m in found], [NONE] * len(found), [False] * len(found)
    for begin, end, target in links:
        kind = types.get(_title(target, language))
        inside = [i for i, m in enumerate(found) if m.start() < end and m.end() > begin]
        if not inside:
            continue
        if kind is None:
            for i in inside:
                untyped[i] = True
        if kind in (None, NONE):
            continue
        first, last = found[inside[0]], found[inside[-1]]
        if first.start() < begin:
            return "a word begins before a link"
        rest = sentence[end : last.end()] if last.end() > end else ""
        if rest and not is_ending(language.lower(rest.lstrip(_INSIDE)), language):
            return "a word goes on after a link, and not with endings of the language"
        for place, i in enumerate(inside):
            tags[i] = f"{'I' if place else 'B'}-{kind}"
    _again(words, tags, untyped, names, language)
    return words, tags, untyped


def _again(words: Sequence[str], tags: list[str], untyped: Sequence[bool], names: Names, language: Language) -> None:
    """Tag what is not tagged yet and is a name of the article, its last word also with endings."""
    by_length = sorted({len(name) for name in names}, reverse=True)
    at = 0
    while at < len(words):
        step = 1
        for length in by_length:
            here = tuple(words[at : at + length])
            if len(here) < length or any(tag != NONE for tag in tags[at : at + length]) or any(untyped[at : at + length]):
                continue
            if kind := _known(here, names, language):
                tags[at : at + length] = [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
                step = length
                break
        at += step


def _known(here: tuple[str, ...], names: Names, language: Language) -> str | None:
    if here in names:
        return names[here]
    last = here[-1]
    for cut in range(len(last) - 1, 1, -1):
        stem, rest = last[:cut].rstrip(_INSIDE), language.lower(last[cut:].lstrip(_INSIDE))
        if rest and (kind := names.get((*here[:-1], stem))) and is_ending(rest, language):
            return kind
    return None


def doubtful(words: Sequence[str], tags: Sequence[str], untyped: Sequence[bool], own: Mapping[str, Any]) -> str | None:
    """Why a tagged sentence is set aside; None if it is kept."""
    if not own["min_words"] <= len(words) <= own["max_words"]:
        return f"not {own['min_words']} to {own['max_words']} words"
    if own["open_capitals"]:
        return None
    capital = [word[:1].isupper() and tag == NONE for word, tag in zip(words, tags, strict=True)]
    if any(c and u for c, u in zip(capital, untyped, strict=True)):
        return "a link with a capital leads to a page without a type"
    opening = next((i for i, word in enumerate(words) if word[:1].isalnum()), 0)
    if any(capital[opening + 1 :]):
        return "a capital outside every name"
    return None


# ---------------------------------------------------------------- conll, and the choice


def _of_conll(path: Path, put_aside: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    loaded = load_task_file(path, "tagging", TaskSettings())
    put_aside += [aside(skip["file"], skip["line"], skip["reason"]) for skip in loaded.skipped]
    for example in loaded.examples:
        yield {**example, "id": f"{path.name}:{example['id']}", "group": group_name(fold(" ".join(example["words"])))}


def _once(sentences: Sequence[dict[str, Any]], put_aside: list[dict[str, Any]]) -> list[dict[str, Any]]:
    seen: dict[tuple[str, ...], str] = {}
    kept = []
    for sentence in sentences:
        twin = seen.setdefault(tuple(sentence["words"]), sentence["id"])
        if twin == sentence["id"]:
            kept.append(sentence)
        else:
            put_aside.append(aside("", None, "the same sentence as another", {"as": twin}, sentence["id"]))
    return kept


def _chosen(
    sentences: list[dict[str, Any]], own: Mapping[str, Any], seed: int, put_aside: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """At most max_sentences, of which the share `empty` has no name; drawn by the seed, in the order of the text."""
    draw = random.Random(seed)
    sides: dict[bool, list[int]] = {True: [], False: []}
    for place, sentence in enumerate(sentences):
        sides[set(sentence["tags"]) != {NONE}].append(place)
    for side in sides.values():
        draw.shuffle(side)
    named = sides[True][: own["max_sentences"] - int(own["empty"] * own["max_sentences"])]
    empty = sides[False][: int(len(named) * own["empty"] / (1 - own["empty"]))]
    for reason, side, used in (
        ("not drawn: more sentences with a name than max_sentences", sides[True], named),
        ("not drawn: more sentences without a name than the share `empty`", sides[False], empty),
    ):
        left = [sentences[place] for place in side[len(used) :]]
        put_aside += [aside("", None, reason, " ".join(s["words"]), s["id"]) for s in left]
    return [sentences[place] for place in sorted([*named, *empty])]
