"""Move a checkpoint's weights to another tokenizer: new embeddings are computed from the old ones.

Tokens that both vocabularies spell keep their embedding and decoder bias, whatever marks the two use for the beginning of a
word (## , ▁, Ġ). The others are initialised by one of METHODS; `none` initialises even the shared ones at random.
        random  drawn from a normal distribution with mean and standard deviation of the old embeddings, for each dimension
        mean    mean of the tokens into which the old tokenizer splits the new token (FVT, Gee et al. 2022, EMNLP industry)
        focus   sparsemax-weighted mean of the most similar shared tokens (Dobler & de Melo 2023, arXiv 2305.14481)
FOCUS measures similarity in static embeddings trained with fastText on the target text; here they are the first singular
vectors of the positive pointwise mutual information of tokens within WINDOW of each other in the token shards (Levy &
Goldberg 2014), which needs no library. Encoder blocks and the head's dense layer are not changed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from language.base import load_language
from tokenization.tokenizer import Tokenizer

METHODS = ("random", "mean", "focus", "none")
MARK = "▁"
WINDOW, RANK = 5, 128  # neighbours counted on either side; dimensions of the static embeddings
MOST_TOKENS = 8_000_000  # tokens of the shards, from the beginning, whose neighbours are counted: at most 1.5 GB of pairs
Token = tuple[str, bool]  # text of a token, and whether a word begins with it


@dataclass
class Report:
    """Number of tokens of the new vocabulary by kind of initialisation; they add up to its size."""

    special: int = 0
    overlap: int = 0
    method: int = 0
    random: int = 0

    def __str__(self) -> str:
        return f"{self.overlap} tokens overlap, {self.special} are special, {self.method} by the method, {self.random} random"


def byte_letters() -> dict[str, int]:
    """The byte that each letter of a byte-level vocabulary represents (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + number): byte for number, byte in enumerate(others)}


def spelled(tokenizer: Tokenizer) -> list[Token | None]:
    """The text of each token in any vocabulary's convention; None for special tokens and parts of a character.

    A sign is the same token everywhere: WordPiece separates it, others attach it to the word.
    """
    tokens, special = tokenizer.tokens, set(tokenizer.special_ids.tolist())
    hashed = any(token.startswith("##") and len(token) > 2 for token in tokens)
    bytewise = not hashed and sum(token.startswith("Ġ") for token in tokens) > sum(token.startswith(MARK) for token in tokens)
    table = byte_letters()
    found: list[Token | None] = []
    for number, token in enumerate(tokens):
        text, begins = token, True
        if number in special or not token or (token.startswith("<0x") and token.endswith(">") and len(token) == 6):
            found.append(None)
            continue
        if hashed:
            begins = not (token.startswith("##") and len(token) > 2)
            text = token if begins else token[2:]
        elif bytewise:
            begins = token.startswith("Ġ")
            try:
                text = bytes(table[letter] for letter in token.removeprefix("Ġ")).decode()
            except (KeyError, UnicodeDecodeError):
                found.append(None)
                continue
        else:
            begins = token.startswith(MARK)
            text = token.removeprefix(MARK).replace(MARK, " ")
        if not text:
            found.append((" ", True))
        elif not any(letter.isalnum() for letter in text):
            found.append((text, True))
        else:
            found.append((text, begins))
    return found


def matches(old: Tokenizer, new: Tokenizer) -> dict[int, list[int]]:
    """For each new token that is also in the old vocabulary, the old ids.

    A token of an uncased vocabulary without a match takes all old ones whose lower case (in the new language) it is.
    """
    lower = (new.language or load_language("generic")).lower
    exact: dict[Token, list[int]] = {}
    lowered: dict[Token, list[int]] = {}
    for number, token in enumerate(spelled(old)):
        if token is not None:
            exact.setdefault(token, []).append(number)
            lowered.setdefault((lower(token[0]), token[1]), []).append(number)
    found = {}
    for number, token in enumerate(spelled(new)):
        ids = exact.get(token) or (lowered.get(token) if new.lowercase else None) if token is not None else None
        if ids:
            found[number] = ids
    return found


def parts_of(texts: list[Token], old: Tokenizer) -> list[list[int]]:
    """The old tokens of each string: as the old tokenizer splits it after a sign, or the longest matches inside a word."""
    table = {token: number for number, token in reversed(list(enumerate(spelled(old)))) if token is not None}
    longest = max((len(text) for text, _ in table), default=1)
    unknown = {old.unk_id, *old.special_ids.tolist()}
    encodings = iter(old.encode_with_offsets([f". {text}" for text, begins in texts if begins]))
    parts = []
    for text, begins in texts:
        if begins:
            encoding = next(encodings)
            ids = encoding.ids[encoding.offsets[:, 1] > 2].tolist()
        else:
            ids, at = [], 0
            while at < len(text):
                end = next((e for e in range(min(len(text), at + longest), at, -1) if (text[at:e], False) in table), None)
                if end is not None:
                    ids.append(table[text[at:end], False])
                # A sign, or a letter that the old vocabulary has only at the beginning of words.
                elif (text[at], True) in table:
                    ids.append(table[text[at], True])
                at = end or at + 1
        parts.append([number for number in ids if number not in unknown])
    return parts


def static_embeddings(documents: Iterable[np.ndarray], size: int, rank: int = RANK, seed: int = 0) -> Tensor:
    """Unit vectors [size, rank] of tokens from their neighbours; zeros for tokens that never occur.

    `documents`: ids of each text. U S^1/2 of the PPMI matrix of pairs within WINDOW, contexts smoothed by 0.75 (arXiv
    1405.4053's neighbours: Levy, Goldberg & Dagan 2015, TACL 3).
    """
    codes: list[np.ndarray] = []
    seen = 0
    for ids in documents:
        ids = ids.astype(np.int64)  # noqa: PLW2901
        for distance in range(1, WINDOW + 1):
            codes.append(ids[:-distance] * size + ids[distance:])
        seen += len(ids)
        if seen >= MOST_TOKENS:
            break
    pairs, counts = np.unique(np.concatenate(codes) if codes else np.zeros(0, np.int64), return_counts=True)
    if not len(pairs):
        return torch.zeros(size, rank)
    rows = np.concatenate([pairs // size, pairs % size])
    columns = np.concatenate([pairs % size, pairs // size])
    values = np.concatenate([counts, counts]).astype(np.float64)
    by_row = np.bincount(rows, values, size)
    smooth = by_row**0.75
    information = np.log(values * smooth.sum() / (by_row[rows] * smooth[columns]))
    kept = information > 0
    matrix = torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([rows[kept], columns[kept]])),
        torch.from_numpy(information[kept]).float(),
        (size, size),
        check_invariants=False,
    ).coalesce()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        left, strengths, _ = torch.svd_lowrank(matrix, q=min(rank, size), niter=4)
    vectors = torch.nn.functional.normalize(left * strengths.sqrt(), dim=1)
    vectors[np.bincount(rows[kept], minlength=size) == 0] = 0.0  # never seen: only rounding errors
    return vectors


def sparsemax(scores: Tensor) -> Tensor:
    """Euclidean projection of each row of `scores` [n, k] on the simplex: mostly zero weights (arXiv 1602.02068)."""
    ordered, _ = scores.sort(dim=1, descending=True)
    count = torch.arange(1, scores.shape[1] + 1, dtype=scores.dtype)
    sums = ordered.cumsum(1) - 1
    support = (ordered * count > sums).sum(1, keepdim=True)
    return (scores - sums.gather(1, support - 1) / support).clamp(min=0)


def transplant(
    words: Tensor, bias: Tensor, old: Tokenizer, new: Tokenizer, method: str, static: Callable[[], Tensor], seed: int = 0
) -> tuple[Tensor, Tensor, Report]:
    """Embeddings [V, H] and decoder bias [V] for the new vocabulary, and counts of their kinds of initialisation.

    `static` computes the static embeddings on demand (focus). Raises UserError for an unknown method.
    """
    if method not in METHODS:
        raise UserError(f"transplant={method}: choose one of {', '.join(METHODS)}.")
    used = words[: old.vocab_size]  # later rows only round up the matrix
    generator = torch.Generator().manual_seed(seed)
    size = new.vocab_size
    fresh = used.mean(0) + used.std(0) * torch.randn(size, words.shape[1], generator=generator)
    fresh_bias = bias[: old.vocab_size].mean().expand(size).clone()
    report = Report()
    roles = zip(("pad", "unk", "cls", "sep", "mask"), new.special_tokens, strict=True)
    pairs = {getattr(new, f"{role}_id"): [getattr(old, f"{role}_id")] for role, name in roles if name}
    pairs = {mine: theirs for mine, theirs in pairs.items() if mine >= 0 and theirs[0] >= 0}
    report.special = len(pairs)
    if method != "none":
        found = matches(old, new)
        report.overlap = len(found)
        pairs |= found
    for number, ids in pairs.items():
        fresh[number] = words[ids].mean(0)
        fresh_bias[number] = bias[ids].mean()
    left = np.array([number for number in range(size) if number not in pairs], dtype=np.int64)
    if method == "mean":
        texts = spelled(new)
        named = [number for number in left.tolist() if texts[number] is not None]
        for number, ids in zip(named, parts_of([texts[number] for number in named], old), strict=True):
            if ids:
                fresh[number] = words[ids].mean(0)
                fresh_bias[number] = bias[ids].mean()
                report.method += 1
    elif method == "focus" and len(found):
        vectors = static()
        anchors = torch.tensor([number for number in found if vectors[number].any()], dtype=torch.long)
        asked = torch.tensor([number for number in left.tolist() if vectors[number].any()], dtype=torch.long)
        for part in asked.split(1024) if len(anchors) else ():
            weights = sparsemax(vectors[part] @ vectors[anchors].T)
            fresh[part] = weights @ fresh[anchors]
            fresh_bias[part] = weights @ fresh_bias[anchors]
            report.method += len(part)
    report.random = len(left) - report.method
    return fresh, fresh_bias, report
