"""Texts that must stay together: the same ones, near duplicates by MinHash, and those that the material itself ties."""

from collections.abc import Sequence

import numpy as np

from corpus.matching.duplicates import Store, join, near_clusters
from corpus.matching.signatures import Signatures, key_digest


def near_groups(
    keys: Sequence[str], agreement: float | None, by_letters: bool = False, tied: Sequence[str | None] = ()
) -> list[int]:
    """For each of `keys` (fold keys of texts) the place of the first text of its group, [n].

    Equal keys are one group, and so are texts whose MinHash signatures agree in at least the share `agreement` (null: only
    equal ones). The signatures are corpus/matching/signatures.py's, over runs of 5 words, which fits documents.
    `by_letters`: over runs of 5 letters, for titles and questions, of which many have fewer than 5 words and in which one
    other word changes most runs of words. `tied`: for each text a name or None; equal names are one group too.
    """
    first: dict[bytes, int] = {}
    signatures, signed = Signatures(), []
    parent = np.arange(len(keys))
    for place, key in enumerate(keys):
        parent[place] = first.setdefault(key_digest(key), place)
        if parent[place] == place and agreement is not None:
            units = " ".join(key.replace(" ", "_")) if by_letters else key  # a letter stands in the place of a word
            if signatures.add(units):
                signed.append(place)
    if signed:
        rows = np.array(signed)
        values = signatures.finish()
        join(parent, rows, rows[near_clusters(Store(values), np.arange(len(values)), agreement)])
    named: dict[str, int] = {}
    pairs = [(place, named.setdefault(name, place)) for place, name in enumerate(tied) if name]
    if pairs:
        join(parent, *(np.array(side) for side in zip(*pairs, strict=True)))
    while not np.array_equal(parent, parent[parent]):
        parent = parent[parent]
    return parent.tolist()


def largest(leaders: Sequence[int]) -> int:
    """How many texts the largest group of `near_groups` holds; 0 if there is none."""
    return int(np.bincount(leaders).max()) if len(leaders) else 0
