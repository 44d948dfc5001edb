"""Embeddings of a new model from the text alone: tokens with similar neighbours start with similar vectors."""

import numpy as np
import torch

from data.shards import Shards

# CELLS x 4 bytes of memory; SEEN: number of tokens counted.
NEIGHBOURS, MOST_CONTEXTS, CELLS, SEEN = 5, 4096, 1 << 26, 4_000_000


def text_embeddings(shards: Shards, size: int, rank: int, seed: int = 0) -> torch.Tensor:
    """Unit vectors [size, rank] of tokens from their frequent neighbours; zeros for tokens without any.

    U S^1/2 of the PPMI matrix as in model/convert/transplant.py, but against the most frequent tokens only: a dense matrix of
    CELLS cells, whose products take a tenth of the time of sparse ones. Counted on whole documents up to SEEN tokens.
    """
    lengths = shards.documents["length"]
    step = max(1, int(lengths.sum()) // SEEN)
    rows = shards.documents[::step]
    owner = np.repeat(np.arange(len(rows)), rows["length"])
    inside = np.arange(len(owner)) - np.repeat(np.cumsum(rows["length"]) - rows["length"], rows["length"])
    ids = shards.tokens[rows["start"][owner] + inside].astype(np.int64)
    frequent = np.argsort(-np.bincount(ids, minlength=size), kind="stable")[: min(size, MOST_CONTEXTS, CELLS // size)]
    place = np.full(size, -1)
    place[frequent] = np.arange(len(frequent))
    codes = []
    for distance in range(1, NEIGHBOURS + 1):
        same = owner[:-distance] == owner[distance:]
        for word, beside in ((ids[:-distance], ids[distance:]), (ids[distance:], ids[:-distance])):
            context = place[beside]
            kept = same & (context >= 0)
            codes.append(word[kept] * len(frequent) + context[kept])
    joined = np.concatenate(codes) if codes else np.zeros(0, np.int64)
    counts = torch.from_numpy(np.bincount(joined, minlength=size * len(frequent)).astype(np.float32)).view(size, -1)
    by_word, smooth = counts.sum(1, keepdim=True), counts.sum(0) ** 0.75
    information = counts.mul_(smooth.sum()).div_(by_word.clamp(min=1)).div_(smooth.clamp(min=1)).log_().clamp_(min=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        left, strengths, _ = torch.svd_lowrank(information, q=min(rank, *information.shape), niter=2)
    vectors = torch.zeros(size, rank)
    vectors[:, : left.shape[1]] = torch.nn.functional.normalize(left * strengths.sqrt(), dim=1)
    return torch.where((information > 0).any(1, keepdim=True), vectors, 0.0)
