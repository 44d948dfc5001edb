"""Any language, by Unicode alone: no alphabet, casing rules, words or detector."""

from language.base import Language

LANGUAGE = Language(name="generic", code="und")  # ISO 639-2: undetermined
