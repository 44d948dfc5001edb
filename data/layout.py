"""Positions of the documents in a flat batch of tokens, and their arrangement in rows for kernels without varlen support.

A batch is a line of T tokens, document after document, without padding: every layer except attention works on [T, H].
`Layout` records where each document begins. For attention through `scaled_dot_product_attention` (any device), tokens are
gathered into rows and back; the plan of this is computed once for each batch and used by every layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

# Row lengths of the padded route: a document is padded to the next of these. Steps of about a third keep the padding in
# attention (the only place with padding) below a third, and the number of calls a layer below a dozen at length 512.
ROW_LENGTHS = np.array([8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192])


@dataclass
class Rows:
    """A rectangle of tokens for attention.

    index [R, C] token in each cell (padding repeats token 0); document [R, C] number of its document, -1 for padding;
    position [R, C] its position inside the document. The rest is known on the host, so that attention never waits for the
    device: owners [R] document of each row if each row holds one (None if rows hold several); full: no cell is padding.
    """

    index: torch.Tensor
    document: torch.Tensor
    position: torch.Tensor
    owners: np.ndarray | None = None
    full: bool = False


@dataclass
class Layout:
    """The documents of a flat batch.

    lengths: tokens of each document (host). starts [n + 1] int32: first token of each, and T. position [T]: position of
    each token inside its document. `plans` caches the row plans. causal: a token attends to itself and earlier ones only.
    """

    lengths: np.ndarray
    starts: torch.Tensor
    position: torch.Tensor
    plans: dict[str, tuple[list[Rows], torch.Tensor]] = field(default_factory=dict)
    masks: dict[tuple, torch.Tensor | None] = field(default_factory=dict)  # attention masks, shared by all layers
    selected: tuple[torch.Tensor, Layout] | None = None  # positions that the loss needs, and their layout
    causal: bool = False

    @classmethod
    def of(cls, lengths: np.ndarray | list[int], device: torch.device | str = "cpu", causal: bool = False) -> Layout:
        """Layout of documents with these token counts (each at least 1), in this order."""
        lengths = np.asarray(lengths, dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        position = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        starts = torch.from_numpy(starts.astype(np.int32))
        return cls(lengths, move(starts, device), move(torch.from_numpy(position), device), causal=causal)

    def __post_init__(self) -> None:
        self.total = int(self.lengths.sum())  # tokens T
        self.longest = int(self.lengths.max()) if len(self.lengths) else 0  # tokens of the longest document

    def select(self, positions: torch.Tensor) -> None:
        """Compute the layout of these positions now, on the host, so that no step has to fetch them from the device."""
        self.selected = (positions, self.subset(positions))

    def to(self, device: torch.device | str) -> Layout:
        """This layout on `device`, with the result of `select`; the copy is asynchronous. Row plans are not copied."""
        device = torch.device(device)
        if device == self.starts.device:
            return self
        selected = self.selected and (move(self.selected[0], device), self.selected[1].to(device))
        starts, position = move(self.starts, device), move(self.position, device)
        return Layout(self.lengths, starts, position, selected=selected, causal=self.causal)

    def asking(self, positions: np.ndarray, device: torch.device | str) -> tuple[Layout, torch.Tensor]:
        """This layout and these positions [M] (sorted, flat) on `device`: computed on the host, so that nothing waits."""
        self.select(torch.from_numpy(positions))
        moved = self.to(device)
        return moved, moved.selected[0]

    def queries(self, positions: torch.Tensor) -> Layout:
        """Layout of the tokens at `positions`: the result of `select` for the same positions, or computed now.

        The tensor that was given to `select` (or its copy in the layout returned by `to`) is recognised by identity; any
        other is compared by value, which waits for a GPU.
        """
        if self.selected is not None:
            known, layout = self.selected
            if positions is known or (len(positions) == len(known) and torch.equal(positions, known)):
                return layout
        return self.subset(positions)

    @torch.compiler.disable  # plans are made on the host
    def subset(self, positions: torch.Tensor) -> Layout:
        """Layout of the tokens at `positions` (sorted, flat) in their documents, some of which may become empty."""
        ends = torch.searchsorted(positions.cpu(), self.starts.cpu().long())
        lengths = torch.diff(ends).numpy()
        return Layout(lengths, ends.to(torch.int32).to(self.starts.device), self.position[positions])

    @torch.compiler.disable  # plans are made on the host
    def rounded(self, multiple: int, longest: int) -> Layout:
        """This layout with dummy padding (documents of at most `longest` tokens) up to a multiple; itself if it is one."""
        rest = -self.total % multiple
        if not rest:
            return self
        filler = [min(longest, rest - begin) for begin in range(0, rest, longest)]
        return Layout.of(np.append(self.lengths, filler), self.starts.device, self.causal)

    @torch.compiler.disable  # plans are made on the host
    def rows(self, route: str) -> tuple[list[Rows], torch.Tensor]:
        """Rectangles for `route`, and for each token [T] the number of its cell, counted through all rectangles.

        "padded": one rectangle for each row length, one document in a row. "packed": one rectangle with several documents in a
        row; a row is as long as the longest document.
        """
        if route not in self.plans:
            groups = _by_length(self.lengths) if route == "padded" else [_packed(self.lengths)]
            self.plans[route] = self._plan(groups)
        return self.plans[route]

    def _plan(self, groups: list[tuple[np.ndarray, np.ndarray, np.ndarray, int, int]]) -> tuple[list[Rows], torch.Tensor]:
        """Turn (documents, row of each, first column of each, rows, columns) into index rectangles."""
        device = self.starts.device
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        cell_of_token = np.zeros(starts[-1], dtype=np.int64)
        rectangles, cells = [], 0
        for documents, row, column, n_rows, n_columns in groups:
            lengths = self.lengths[documents]
            inside = np.arange(lengths.sum()) - np.repeat(np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
            token = np.repeat(starts[documents], lengths) + inside
            cell = np.repeat(row * n_columns + column, lengths) + inside
            index = np.zeros(n_rows * n_columns, dtype=np.int64)
            number = np.full(n_rows * n_columns, -1, dtype=np.int64)
            place = np.zeros(n_rows * n_columns, dtype=np.int64)
            index[cell], number[cell], place[cell] = token, np.repeat(documents, lengths), inside
            cell_of_token[token] = cells + cell
            cells += n_rows * n_columns
            parts = (move(torch.from_numpy(part).view(n_rows, n_columns), device) for part in (index, number, place))
            alone = n_rows == len(documents)
            owners = documents[np.argsort(row)] if alone else None
            rectangles.append(Rows(*parts, owners, full=len(cell) == n_rows * n_columns))
        return rectangles, move(torch.from_numpy(cell_of_token), device)


def move(x: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """`x` from the host on `device`. The copy to a GPU uses pinned memory, so that the host does not wait."""
    if torch.device(device).type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def _by_length(lengths: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, int, int]]:
    bounds = ROW_LENGTHS if lengths.max() <= ROW_LENGTHS[-1] else np.append(ROW_LENGTHS, lengths.max())
    group = np.searchsorted(bounds, lengths)
    groups = []
    for number in np.unique(group[lengths > 0]):
        documents = np.flatnonzero((group == number) & (lengths > 0))
        columns = int(bounds[number])  # not the longest in the group, because a kernel is compiled for every new shape
        groups.append((documents, np.arange(len(documents)), np.zeros(len(documents), np.int64), len(documents), columns))
    return groups


def _packed(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    """First fit in order of falling length, into rows as long as the longest document."""
    columns = int(lengths.max())
    order = np.argsort(-lengths, kind="stable")
    filled: list[int] = []
    row, column = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    for document in order:
        length = int(lengths[document])
        place = next((r for r, used in enumerate(filled) if used + length <= columns), len(filled))
        if place == len(filled):
            filled.append(0)
        row[document], column[document] = place, filled[place]
        filled[place] += length
    return np.arange(len(lengths)), row, column, len(filled), columns
