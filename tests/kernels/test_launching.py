from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import abpn_fast

pytest.importorskip("triton")
from abpn_fast.backends import choose
from abpn_fast.kernels import launching


class Kernel:
    """Notes how it is launched."""

    def __init__(self) -> None:
        self.launched: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments, **options: self.launched.append((grid, arguments, options))


def test_fusion_is_never_left_to_the_compiler() -> None:
    kernel, x = Kernel(), torch.zeros(2)
    launching.start(kernel, 3, x, x, 1, threads=64)
    ((grid, arguments, options),) = kernel.launched
    assert grid == (3,) and arguments == (x, 1) and options == {"enable_fp_fusion": False, "num_warps": 2}


def test_on_the_device_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[Any] = []
    seen: list[list[Any]] = []

    @contextlib.contextmanager
    def device_of(like: torch.Tensor) -> Iterator[None]:
        current.append(like)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    x = torch.zeros(2)
    launching.start({(3,): lambda *_, **__: seen.append(list(current))}, 3, x, threads=32)
    assert len(seen) == 1 and seen[0][0] is x


def test_threads_of_a_warp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(warp_size=64))
    assert launching.warp(SimpleNamespace(is_cuda=True, device="cuda")) == 64
    assert launching.warp(torch.zeros(1)) == 32


def test_warps(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, x = Kernel(), torch.zeros(2)
    monkeypatch.setattr(launching, "warp", lambda like: 64)
    for threads in (32, 64, 128):
        launching.start(kernel, 3, x, threads=threads)
    assert [options["num_warps"] for _, _, options in kernel.launched] == [1, 1, 2]


def test_what_was_tuned_on_a_gpu_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(launching, "tables", {"a GPU": {"levels": {"rows": 8}}}.get)
    like = SimpleNamespace(is_cuda=True, device="cuda")
    assert launching.tuned("levels", like, threads=64, rows=16) == {"threads": 64, "rows": 8}
    assert launching.tuned("tiles", like, threads=64) == {"threads": 64}
    assert launching.tuned("levels", torch.zeros(1), rows=16) == {"rows": 16}


def test_nothing_to_do_launches_nothing() -> None:
    kernel, x = Kernel(), torch.zeros(2)
    launching.start(kernel, 0, x, x, threads=32)
    assert kernel.launched == []


def test_alike() -> None:
    plain = torch.zeros(2, 3, 4, 5)
    last = plain.contiguous(memory_format=torch.channels_last)
    assert launching.alike(plain, plain) and launching.alike(last, last)
    assert not launching.alike(plain, last)
    assert not launching.alike(plain, torch.zeros(2, 3, 4, 6)[..., :5])


def test_the_interpreter_is_never_chosen_automatically(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    image = torch.rand(1, 3, 4, 4)
    assert abpn_fast.why_not("triton", image, operator="pyramid_down") is None
    for dtype in (torch.float32, torch.float64):
        assert choose("auto", "pyramid_down", [image.to(dtype)]) in ("cpu", "reference")
    assert choose("triton", "pyramid_down", [image]) == "triton"
    for value in ("0", ""):
        monkeypatch.setenv("TRITON_INTERPRET", value)
        with pytest.raises(
            RuntimeError, match="backend triton runs on tensors on an NVIDIA or AMD GPU, got one on cpu"
        ):
            choose("triton", "pyramid_down", [image])
