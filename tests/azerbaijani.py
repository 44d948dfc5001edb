"""The rooms' functions with the Azerbaijani pack already given, for the tests of the corpus."""

from functools import partial
from pathlib import Path
from typing import Any

from common.settings import typed
from corpus import build, clean, language, quality
from corpus.cleaning import lines, mojibake, privacy
from corpus.matching.decontamination import TaskIndex as AnyTaskIndex
from corpus.reading import wikipedia
from corpus.settings import Corpus
from language.azerbaijani import LANGUAGE as AZ

clean_text = partial(clean.clean_text, language=AZ)
repair_mojibake = partial(mojibake.repair_mojibake, language=AZ)
hide_personal = partial(privacy.hide_personal, language=AZ)
drop_lines = partial(lines.drop_lines, language=AZ)
identify = partial(language.identify, language=AZ)
signals = partial(quality.signals, language=AZ)
describe = partial(quality.describe, language=AZ)
find_preset = partial(quality.find_preset, language=AZ)
plain_text = partial(wikipedia.plain_text, language=AZ)
TaskIndex = partial(AnyTaskIndex, AZ)


def first_broken_rule(measured: Any, preset: Any) -> str | None:
    """The first rule of a preset (a name or a list of rules) that the text breaks."""
    return quality.first_broken_rule(measured, find_preset(preset) if isinstance(preset, str) else preset)


def build_corpus(settings: dict[str, Any], out: str | Path, origin: dict[str, str] | None = None) -> dict[str, Any]:
    """A corpus in Azerbaijani."""
    return build.build_corpus(typed(Corpus, {"language": "azerbaijani", **settings}, "corpus"), out, origin)
