"""Gated convolutions and whole networks on a GPU, small: `compute-sanitizer python -m tests.backends.sanitize_cuda`."""

from __future__ import annotations

import torch

import abpn_fast
from tests.backends.test_cuda import check, check_gradient, inputs

# Every kernel, whole and phased, split and not, with tiles that stick out on every side.
SHAPES = [
    (64, 64, 64, (16, 16)),
    (72, 40, 72, (33, 17)),
    (48, 40, 24, (5, 9)),
    (16, 8, 40, (34, 36)),
    (16, 3, 3, (32, 34)),
    (9, 7, 5, (7, 7)),
]
# By groups of 16 bytes and by number; fewer, as most of their time is PyTorch's.
GRADIENTS = (SHAPES[2], SHAPES[-1])


def main() -> None:
    torch.manual_seed(0)
    # What the kernels are compared with; in TF32 it would allow them anything.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for features, skip, out, size in SHAPES:
            check(inputs(features, skip, out, size, count=2, dtype=dtype))
        for features, skip, out, size in GRADIENTS:
            check_gradient(inputs(features, skip, out, size, count=2, dtype=dtype))
    torch.cuda.synchronize()
    print(f"{3 * len(SHAPES)} gated convolutions and {3 * len(GRADIENTS)} gradients within their budgets", flush=True)
    for dtype in (torch.float16, torch.float32):
        whole_network(dtype)
        print(f"the network in {dtype}", flush=True)
    print("all passes done", flush=True)


@torch.no_grad()
def whole_network(dtype: torch.dtype, device: str = "cuda") -> None:
    """With and without a threshold of the mask; sizes that are no multiples of a tile."""
    model = abpn_fast.ABPN.from_pretrained("small", dtype=dtype, device=device)
    image = torch.rand(2, 3, 200, 264).to(device, dtype)
    for threshold in (None, 0.5):
        assert model(image, levels=2, mask_threshold=threshold).isfinite().all()


if __name__ == "__main__":
    main()
