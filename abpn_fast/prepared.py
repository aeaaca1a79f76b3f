"""What is worked out from tensors once, and again when one of them has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any, Generic, TypeVar

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakTensorKeyDictionary

Source = TypeVar("Source")
Value = TypeVar("Value")


class Prepared(Generic[Value]):
    """A value made from tensors, kept until one of these is written in place, replaced, moved or cast.

    Not seen, as by autograd: writes that go around PyTorch's version counter, such as ``tensor.data.add_(1)`` or those
    of collectives; ``clear`` is for them. Those of fused optimizers are. Tensors made in inference mode have no such
    counter, and those in shared memory are written by other processes; what is made from them is not kept. Copies and
    pickles start empty.
    """

    def __init__(self) -> None:
        self._kept: tuple[list[Any], list[StorageWeakRef], Value] | None = None

    def get(self, sources: Sequence[Tensor], make: Callable[[], Value], *options: object) -> Value:
        """The kept value, or that of ``make`` where ``sources`` or ``options`` are not those it was made from.

        Two threads may make it twice; either value is right.
        """
        try:
            # As few steps as this takes: it runs before every pass, over a hundred sources.
            pointers = list(map(Tensor.data_ptr, sources))
            versions = [*map(_version, sources), *map(_uncounted.get, pointers)]
            shapes = [*map(Tensor.size, sources), *map(Tensor.stride, sources)]
            stamps = [*options, *versions, *pointers, *shapes]
        except RuntimeError:
            return make()
        kept = self._kept
        # An address may be another storage's by now, but only if the one it was is gone.
        if kept is None or kept[0] != stamps or any(map(StorageWeakRef.expired, kept[1])):
            if any(map(_is_shared, sources)):
                return make()
            storages = [StorageWeakRef(source.untyped_storage()) for source in sources]  # type: ignore[no-untyped-call]
            kept = self._kept = (stamps, storages, make())
        return kept[2]

    def clear(self) -> None:
        """Make it again at the next ``get``."""
        self._kept = None

    def __reduce__(self) -> tuple[type[Prepared[Value]], tuple[()]]:
        return type(self), ()


def _is_shared(source: Tensor) -> bool:
    # On a GPU every tensor says so.
    return source.device.type == "cpu" and source.is_shared()  # type: ignore[no-untyped-call]


_version = attrgetter("_version")
# Steps of fused optimizers, which write without counting it, by the address of what they write.
_uncounted: dict[int, int] = {}


def _note_step(optimiser: Optimizer, *_: object) -> None:
    for group in optimiser.param_groups:
        for parameter in group["params"] if group.get("fused") else ():
            # Others than plain tensors may have no address.
            with suppress(RuntimeError):
                address = parameter.data_ptr()
                _uncounted[address] = _uncounted.get(address, 0) + 1


register_optimizer_step_post_hook(_note_step)

_of_tensors: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def from_tensors(name: Any, sources: Sequence[Tensor | None], make: Callable[[], Value]) -> Value:
    """What ``make`` works out from ``sources``, under a ``name``, kept as long as the first of them lives.

    Not kept where one of them requires a gradient: an optimizer may write it unseen.
    """
    tensors = [source for source in sources if source is not None]
    if any(tensor.requires_grad for tensor in tensors):
        return make()
    by_name: dict[Any, Prepared[Value]] = _of_tensors.setdefault(tensors[0], {})  # type: ignore[no-untyped-call]
    return by_name.setdefault(name, Prepared()).get(tensors, make)


class Arranged(Generic[Source, Value]):
    """What is made from ``source`` at the first use; then ``source`` is let go, so that only one is in memory."""

    def __init__(self, source: Source) -> None:
        self._source: Source | None = source
        self._value: Value | None = None

    def get(self, make: Callable[[Source], Value]) -> Value:
        """The value; every ``make`` must give the same. Two threads may make it twice."""
        # In this order: another thread lets the source go only after it has kept the value.
        source, value = self._source, self._value
        if value is None:
            assert source is not None
            value = self._value = make(source)
            self._source = None
        return value
