"""What every kind of training data has in common: batch ``n`` is a function of the seed and ``n`` alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from abpn_fast.training.files import Bad, BadFile, Pixels

# Above every index in a batch.
_NO_ITEM = 1 << 31


class Crops(NamedTuple):
    """One batch: how often the crop is halved before the retouching layer, its pixels, how many crops."""

    levels: int
    size: int
    batch: int


class Pair(NamedTuple):
    """A batch: ``image`` as it is and ``target`` retouched, (N, 3, H, W) uint8; the levels to train it with.

    ``skipped`` says of each file that turned out to be bad on the way why.
    """

    image: Tensor
    target: Tensor
    levels: int
    skipped: Sequence[str] = ()


class Batches(Dataset[Pair], ABC):
    """Batches, each item of which has a random generator of its own.

    Args:
        steps: how many batches there are.
        seed: of everything random.
        factor: how many times as large as their kind says batches are.
        part: ``(which, of)``: the items of each batch that this process makes.
        bad: what to do with a file that cannot be decoded: ``"refuse"`` it, or ``"skip"`` to another.

    Raises:
        ValueError: a batch cannot be divided among so many processes.
    """

    def __init__(
        self, steps: int, seed: int, factor: int = 1, part: tuple[int, int] = (0, 1), bad: Bad = "refuse"
    ) -> None:
        self.steps, self.seed, self.factor, self.part, self.bad = steps, seed, factor, part, bad
        for kind in self.kinds():
            if kind.batch * factor % part[1]:
                raise ValueError(
                    f"a batch of {kind.batch * factor} does not divide among {part[1]} processes; "
                    f"choose another number of them or a batch factor that is a multiple of {part[1]}"
                )

    @abstractmethod
    def kinds(self) -> list[Crops]:
        """The kinds of batches there are."""

    @abstractmethod
    def kind(self, rng: np.random.Generator) -> Crops:
        """The kind of one batch."""

    @abstractmethod
    def item(self, rng: np.random.Generator, kind: Crops, position: int) -> tuple[Pixels, Pixels]:
        """``(image, target)``, (size, size, 3), of the item ``position`` of all; drawn anew, it differs.

        Raises:
            BadFile: the file it chose cannot be decoded.
        """

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Pair:
        # Not [seed, step], which numpy fills up with zeros: the first item would draw the same numbers again.
        kind = self.kind(np.random.default_rng([self.seed, step, _NO_ITEM]))
        batch = kind.batch * self.factor
        share = batch // self.part[1]
        first = share * self.part[0]
        items, skipped = [], list[str]()
        for index in range(first, first + share):
            rng = np.random.default_rng([self.seed, step, index])
            items.append(self._usable(rng, kind, step * batch + index, skipped))
        image, target = (
            torch.from_numpy(np.stack(part)).permute(0, 3, 1, 2).contiguous() for part in zip(*items, strict=True)
        )
        return Pair(image, target, kind.levels, skipped)

    def _usable(
        self, rng: np.random.Generator, kind: Crops, position: int, skipped: list[str]
    ) -> tuple[Pixels, Pixels]:
        for _ in range(100):
            try:
                return self.item(rng, kind, position)
            except BadFile as error:
                if self.bad == "refuse":
                    raise
                skipped.append(str(error))
                position = int(rng.integers(1 << 62))
        raise BadFile("100 files in a row cannot be read; is the disk still there?")


def load(batches: Batches, first: int, workers: int) -> Iterator[Pair]:
    """The batches from ``first`` on, made ahead in processes of their own.

    Raises:
        BadFile: as in the process that met it.
    """
    loader = DataLoader(
        Subset(_Told(batches), range(first, len(batches))),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        persistent_workers=False,
    )
    for batch in loader:
        if isinstance(batch, BadFile):
            raise batch
        yield batch


class _Told(Dataset["Pair | BadFile"]):
    """Returns a bad file instead of raising it: a worker's exception would arrive buried in its traceback."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, step: int) -> Pair | BadFile:
        try:
            return self.batches[step]
        except BadFile as error:
            return error
