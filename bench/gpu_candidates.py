"""What runs on a GPU: networks and operators, each with what it must move or compute at least."""

from __future__ import annotations

import concurrent.futures
import copy
import multiprocessing
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

import abpn_fast
from abpn_fast import ops, reference
from bench import networks
from bench.pyramid import FLOPS_PER_PIXEL, Pyramid

Call = Callable[[], Tensor]


class Candidate(NamedTuple):
    """A network in a certain dtype: ``prepare(model, image)`` as in ``bench.peers``.

    ``graphed``: its memory is allocated when it is recorded, so that the peak of a call says nothing.
    """

    label: str
    dtype: torch.dtype
    prepare: Callable[[reference.ABPN, Tensor], Call]
    ours: bool = False
    image: torch.dtype | None = None
    graphed: bool = False


def _eager(model: reference.ABPN, image: Tensor) -> Call:
    return lambda: model(image)


def _channels_last(model: reference.ABPN, image: Tensor) -> Call:
    return _eager(model.to(memory_format=torch.channels_last), image.contiguous(memory_format=torch.channels_last))


def _compiled(mode: str) -> Callable[[reference.ABPN, Tensor], Call]:
    def prepare(model: reference.ABPN, image: Tensor) -> Call:
        model = model.to(memory_format=torch.channels_last)
        image = image.contiguous(memory_format=torch.channels_last)
        compiled = torch.compile(model, dynamic=False, mode=mode)
        return lambda: compiled(image)

    return prepare


def _graphed(model: reference.ABPN, image: Tensor) -> Call:
    """The eager network, replayed on a copy of the image, as ``_ours_graphed`` is."""
    given = image.clone(memory_format=torch.channels_last)
    replay = recorded(_channels_last(model, given))

    def run() -> Tensor:
        given.copy_(image)
        return replay()

    return run


def recorded(call: Call) -> Call:
    """``call`` as one CUDA graph, whose replay writes into the same memory every time."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        result = call()

    def replay(_kept: Call = call) -> Tensor:
        """The graph reads the parameters of ``_kept``, but does not hold them."""
        graph.replay()
        return result

    return replay


def _ours(model: reference.ABPN, image: Tensor) -> Call:
    fast = abpn_fast.accelerate(model)
    return lambda: fast(image)


def _ours_graphed(model: reference.ABPN, image: Tensor) -> Call:
    replay = abpn_fast.accelerate(model).graphed(image)
    return lambda: replay(image)


_FLOAT, _HALF = torch.float32, torch.float16
# In the order of what to give up last when time is short.
NETWORKS = {
    "ours_float16": Candidate("abpn_fast, float16", _HALF, _ours, ours=True),
    "ours_graphed": Candidate("abpn_fast, float16, graphed", _HALF, _ours_graphed, ours=True, graphed=True),
    "eager_half": Candidate("PyTorch eager, float16 channels_last", _HALF, _channels_last),
    "ours": Candidate("abpn_fast", _FLOAT, _ours, ours=True),
    "ours_uint8": Candidate("abpn_fast, float16, uint8 in and out", _HALF, _ours, ours=True, image=torch.uint8),
    "ours_bfloat16": Candidate("abpn_fast, bfloat16", torch.bfloat16, _ours, ours=True),
    "eager": Candidate("PyTorch eager", _FLOAT, _eager),
    "eager_graphed": Candidate("PyTorch eager, float16 channels_last, CUDA graph", _HALF, _graphed, graphed=True),
    "compiled": Candidate("torch.compile, float16 channels_last", _HALF, _compiled("default")),
    # Records graphs as well.
    "autotuned": Candidate(
        "torch.compile max-autotune, float16 channels_last", _HALF, _compiled("max-autotune"), graphed=True
    ),
}


class Operation(NamedTuple):
    """``moved``: bytes of each tensor once; ``flops``: 0 for an operator bound by memory."""

    call: Callable[[], object]
    moved: int
    flops: float = 0


def operations(p: Pyramid, blend: Tensor) -> dict[str, Operation]:
    """Every operator on the photo of ``p``, with B_1 ``blend``, into memory in use."""
    full, result = torch.zeros_like(p.image), torch.zeros_like(p.image)
    arguments = blend, p.image, p.gaussian[1], *p.weights
    flops, layers = FLOPS_PER_PIXEL * p.image.shape[2] * p.image.shape[3], p.results()

    def moved(*tensors: Tensor) -> int:
        return sum(tensor.nbytes for tensor in tensors)

    blended = [p.image, full, *p.coefficients]
    half = torch.zeros_like(p.gaussian[1])
    refined = [*arguments, *p.coefficients]
    return {
        "adaptive_blend": Operation(lambda: ops.adaptive_blend(*blended, out=result), moved(*blended, result)),
        "reverse_adaptive_blend": Operation(
            lambda: ops.reverse_adaptive_blend(*blended, out=result), moved(*blended, result)
        ),
        "pyramid_down": Operation(lambda: ops.pyramid_down(p.image, out=half), moved(p.image, half)),
        "laplacian_decompose": Operation(
            lambda: ops.laplacian_decompose(p.image, 1, out=([half], [result])), moved(p.image, half, result)
        ),
        "upsample_refine": Operation(
            lambda: ops.upsample_refine(*arguments, out=result), moved(*arguments, result), flops
        ),
        "upsample_refine_blend": Operation(
            lambda: ops.upsample_refine_blend(*refined, out=result), moved(*refined, result), flops
        ),
        "fused pyramid, all levels": Operation(lambda: p.expand(layers), moved(*refined, result), p.flops),
    }


def prepared(candidate: Candidate, model: reference.ABPN, image: Tensor) -> Call:
    """The candidate's call; ``model`` stays as it is, ``image`` is float32."""
    given = (image * 255).round().to(torch.uint8) if candidate.image == torch.uint8 else image.to(candidate.dtype)
    return candidate.prepare(copy.deepcopy(model).to(candidate.dtype), given)


def warm(name: str, width: int, height: int, batch: int, device: str = "cuda") -> None:
    """Compile what a candidate, or the operators where ``name`` is a dtype, launch on such images."""
    with torch.no_grad():
        if name in NETWORKS:
            image = torch.rand(batch, 3, height, width, device=device)
            prepared(NETWORKS[name], networks.network("small").to(device), image)()
            return
        p = Pyramid(height, width, getattr(torch, name), device)
        for operation in operations(p, p.coarser()).values():
            operation.call()


def _to_warm() -> Iterator[tuple[str, int, int, int]]:
    """One whole size, one that is no multiple of a tile, and a batch."""
    for size in ((4096, 4096, 1), (3840, 2160, 1), (1024, 1024, 4)):
        for name in ("ours_float16", "ours", "ours_uint8", "ours_bfloat16"):
            yield name, *size
    for dtype in ("float16", "float32"):
        yield dtype, 4096, 4096, 1


def warm_all() -> None:
    """Compile what timing needs, in six processes at once, into Triton's cache on the disk."""
    spawning = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(6, mp_context=spawning) as pool:
        started = {pool.submit(warm, *each): each for each in _to_warm()}
        for done in concurrent.futures.as_completed(started):
            print(*started[done], done.exception() or "compiled", flush=True)
