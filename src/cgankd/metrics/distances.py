"""Nearest neighbours among many vectors, computed block by block to limit memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cgankd.core.mapped_rows import Images

ROWS = 1000  # of queries and of references in one block of distances
ROUNDING = 1e-6  # of a float32 vector, as a share of its length


def nearest(
    queries: Images, references: Images, k: int = 1, same: bool = False, rows: int = ROWS
) -> tuple[Tensor, Tensor]:
    """The ``k`` nearest references of every query, the nearest first: distances float32 [Q, k], rows int64 [Q, k].

    queries [Q, ...] and references [R, ...], R >= k (R > k with ``same``), are flattened; uint8 is converted block by
    block. same: both are the same set, and a vector is not its own neighbour. The distance is Euclidean.

    >>> nearest(torch.tensor([[0.0], [9.0]]), torch.tensor([[1.0], [5.0]]))[0].tolist()
    [[1.0], [4.0]]
    """
    # Neighbours are chosen by |a|^2 + |b|^2 - 2ab, which is inexact where vectors are long and near each other.
    centre = _vectors(references[:rows]).mean(dim=0)
    distances, places = [], []
    for start, block in _blocks(queries, rows):
        best = torch.full((len(block), k), torch.inf)
        place = torch.zeros(len(block), k, dtype=torch.int64)
        for offset, candidates in _blocks(references, rows):
            distance = torch.cdist(block - centre, candidates - centre)
            if same and offset == start:
                distance.fill_diagonal_(torch.inf)
            column = torch.arange(offset, offset + len(candidates)).expand_as(distance)
            best, order = torch.cat([best, distance], dim=1).topk(k, largest=False)
            place = torch.cat([place, column], dim=1).gather(1, order)
        # Still inexact where two images are alike.
        exact = torch.stack([(block - _vectors(references[place[:, j]])).norm(dim=1) for j in range(k)], dim=1)
        distances.append(exact)
        places.append(place)
    return torch.cat(distances), torch.cat(places)


def within(queries: Images, references: Images, radii: Tensor, rows: int = ROWS) -> Tensor:
    """Whether each query lies within the radius of any reference, bool [Q]. radii: float32 [R], one per reference.

    A distance counts as within up to the rounding of float32 vectors, so a copy is within a radius of 0.
    """
    inside = []
    for _, block in _blocks(queries, rows):
        covered = torch.zeros(len(block), dtype=torch.bool)
        for offset, centres in _blocks(references, rows):
            limit = radii[offset : offset + len(centres)] + ROUNDING * centres.norm(dim=1)
            # In double precision, because |a|^2 + |b|^2 - 2ab is inexact where vectors are alike.
            covered |= (torch.cdist(block.double(), centres.double()) <= limit).any(dim=1)
        inside.append(covered)
    return torch.cat(inside)


def _blocks(values: Images, rows: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(values), rows):
        yield start, _vectors(values[start : start + rows])


def _vectors(values: Tensor) -> Tensor:
    return values.flatten(1).float()
