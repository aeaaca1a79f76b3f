from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from abpn_fast import ops, reference, tune
from abpn_fast.kernels import launching


class OnGpu:
    """What ``tuned`` asks of a tensor."""

    is_cuda, device = True, "cuda:0"


@pytest.fixture
def _table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "NVIDIA Abacus.json").write_text(json.dumps({"levels": {"threads": 32, "rows": 8}}))
    monkeypatch.setattr(launching, "CONFIGS", tmp_path)
    launching.tables.cache_clear()
    yield
    launching.tables.cache_clear()


@pytest.mark.usefixtures("_table")
def test_table_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    heuristic = {"threads": 64, "rows": 16}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Abacus")
    assert launching.tuned("levels", OnGpu(), **heuristic) == {"threads": 32, "rows": 8}
    assert launching.tuned("tiles", OnGpu(), threads=128) == {"threads": 128}
    assert launching.tuned("levels", torch.zeros(1), **heuristic) == heuristic
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Slide Rule")
    assert launching.tuned("levels", OnGpu(), **heuristic) == heuristic


def test_the_fastest_candidate() -> None:
    def seconds(sizes: dict[str, int]) -> float:
        return abs(sizes["threads"] - 64) + abs(sizes["rows"] - 32)

    assert tune.fastest("levels", seconds) == {"threads": 64, "rows": 32}


@pytest.mark.parametrize("kernels", tune.CANDIDATES)
def test_candidates_have_the_names_that_the_kernels_ask_for(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    image, weights = torch.rand(1, 3, 8, 8), [part.detach() for part in reference.RefiningModule().weights]
    low, j = ops.pyramid_down(image, backend="reference"), torch.rand(3)
    runs = {
        "tiles": lambda: ops.adaptive_blend(image, image, j, j, backend="triton"),
        "levels": lambda: ops.pyramid_down(image, backend="triton"),
        "refine": lambda: ops.upsample_refine_blend(low, image, low, *weights, j, j, backend="triton"),
    }

    def tuned(name: str, like: torch.Tensor, **heuristic: int) -> None:
        assert (name, [*heuristic]) == (kernels, [*tune.CANDIDATES[kernels]])
        raise InterruptedError

    monkeypatch.setattr(importlib.import_module(f"abpn_fast.kernels.{kernels}"), "tuned", tuned)
    with pytest.raises(InterruptedError):
        runs[kernels]()


@pytest.mark.usefixtures("_table")
def test_what_is_fastest_is_written_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def small_is_fast(run: Callable[[], str], return_mode: str) -> float:
        return sum(launching.tables("NVIDIA Abacus")[run()].values())

    monkeypatch.setattr(pytest.importorskip("triton.testing"), "do_bench_cudagraph", small_is_fast)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Abacus")
    monkeypatch.setattr(tune, "_runs", lambda: {name: lambda name=name: name for name in tune.CANDIDATES})
    assert tune.main() == 0
    assert capsys.readouterr().out == f"{tmp_path / 'NVIDIA Abacus.json'}\n"
    least = {kernels: {name: min(tried) for name, tried in sizes.items()} for kernels, sizes in tune.CANDIDATES.items()}
    assert launching.tables("NVIDIA Abacus") == least
    launching.tables.cache_clear()
    assert launching.tables("NVIDIA Abacus") == least


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_refusal_without_a_gpu() -> None:
    done = subprocess.run([sys.executable, "-m", "abpn_fast.tune"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "abpn_fast.tune needs an NVIDIA or AMD GPU that PyTorch can use; there is none here.\n"
