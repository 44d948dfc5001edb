"""The settings of a tokenizer: types, units and bounds of conf/tokenizer/*.yaml."""

from dataclasses import dataclass
from typing import Any

from common.errors import UserError
from common.settings import choice, number


@dataclass
class Tokenizer:
    """How a tokenizer is trained; imported: taken from the checkpoint that a run starts from."""

    kind: choice("wordpiece", "unigram", "bpe", "imported") = "wordpiece"
    vocab_size: int = number(64000, least=10)  # tokens, special ones included
    lowercase: bool = True
    transliterate: bool = False  # the language's other script to its own first
    min_frequency: int = number(2, least=1)  # occurrences of a pair before it is merged
    alphabet_size: int = number(1000, least=1)  # characters
    prune_from: float = number(1.5, least=1)  # times vocab_size, trained before pruning
    phrases: int = number(0, least=0)  # pairs of words that are one token
    sample_characters: int = number(1_000_000_000, least=1)  # of the training text
    processes: int = number(1, least=1)  # number of processes that count words

    @staticmethod
    def check(values: dict[str, Any], where: str) -> None:
        """Phrases are for WordPiece, and must leave room for the tokens of all other words."""
        phrases, size = values.get("phrases"), values.get("vocab_size")
        if phrases and (values.get("kind") != "wordpiece" or (size and phrases > size // 4)):
            raise UserError(f"{where}.phrases={phrases}: for kind=wordpiece, at most a quarter of vocab_size.")
