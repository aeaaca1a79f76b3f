"""One CUDA graph for the whole network: the retouching layer's many small launches cost more time than their work."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Libraries choose their algorithms and allocate their workspaces in the first calls, which a graph cannot record.
_WARM_UP = 3


class Graphed:
    """A recorded call of ``run``, for images like one example.

    It may be called from any stream: a call waits on the device for all that the stream of the last call has to do.

    Args:
        run: from an image to a tensor, on the GPU throughout, without synchronisation. What it reads must live as long
            as it does and stay where it is; it is kept as long as the graph.
        example: an image of the shape, dtype and layout of all that will come; on the GPU.

    Raises:
        ValueError: ``example`` is not on an NVIDIA or AMD GPU.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], example: Tensor) -> None:
        if example.device.type != "cuda":
            raise ValueError(
                f"graphed records on an NVIDIA or AMD GPU, got an example on {example.device}; move it there"
            )
        self.run = run
        self.graph = torch.cuda.CUDAGraph()
        # Outside inference mode, whose tensors nobody could write to outside it.
        with torch.cuda.device(example.device), torch.inference_mode(False), torch.no_grad():
            self.image = torch.empty_like(example).copy_(example)
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UP):
                    run(self.image)
            torch.cuda.current_stream().wait_stream(aside)
            with torch.cuda.graph(self.graph):
                self.result = run(self.image)
            self.stream = torch.cuda.current_stream()

    def __call__(self, image: Tensor) -> Tensor:
        """The result for ``image``, in memory of the graph: the next call overwrites it, ``clone()`` keeps it.

        Raises:
            ValueError: ``image`` differs from the example in shape, dtype or device.
        """
        like = self.image
        if (image.shape, image.dtype, image.device) != (like.shape, like.dtype, like.device):
            raise ValueError(
                f"image must be like the example, {tuple(like.shape)} {like.dtype} on {like.device}, "
                f"got {tuple(image.shape)} {image.dtype} on {image.device}; record another graph for it"
            )
        with torch.cuda.device(like.device), torch.inference_mode(False), torch.no_grad():
            # Also for what the last caller still does with the result.
            torch.cuda.current_stream().wait_stream(self.stream)
            self.stream = torch.cuda.current_stream()
            self.image.copy_(image)
            self.graph.replay()
        return self.result
