"""What of the GPU's benchmark can be tried without one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from bench import gpu, gpu_candidates, gpu_measure

CPU = ("ours", "ours_uint8", "eager", "ours_float16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_sentence(tmp_path: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip().startswith("bench.gpu needs an NVIDIA GPU") and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_cases() -> None:
    found = list(gpu.cases())
    assert len(found) == len(set(found))
    assert {case.candidate for case in found} == set(gpu_candidates.NETWORKS)
    assert found[0] == gpu.Case("ours_float16", 4096, 4096, 1)
    compiled = [case.candidate in ("compiled", "autotuned") for case in found]
    assert compiled == sorted(compiled)
    for name in ("ours", "eager"):
        shapes = {case[1:] for case in found if case.candidate == name}
        assert shapes == {(*size, batch) for size in gpu.SIZES for batch in (1, 4)}


@pytest.mark.parametrize("name", CPU)
@torch.inference_mode()
def test_network_row(name: str) -> None:
    image = gpu_measure.photos(512, 512, 1, "cpu")
    candidate = gpu_candidates.NETWORKS[name]
    expected = gpu_measure.networks.network("small")(image)
    row = gpu_measure.network_row(candidate, "small", image, expected)
    assert row["stats"]["min"] <= row["stats"]["median"] and row["stats"]["rounds"] >= 3
    assert row["extra_info"]["peak_beyond_input"] > 512 * 512 * 3
    wrong = gpu_measure.network_row(candidate, "small", image, expected + 0.02)
    assert "differs" in wrong["refusal"]


@torch.inference_mode()
def test_operators_write_what_the_model_computes() -> None:
    operations = gpu_candidates.operations(70, 66, torch.float32, "cpu")
    for name, operation in operations.items():
        operation.call()
        assert operation.moved > 3 * 4 * 70 * 66 and (operation.flops > 0) == ("refine" in name or "fused" in name)
    ceiling = {"copy": 1e9, "float32": 1e12, "float16": 4e12}
    row = gpu_measure.operator_row(operations["pyramid_down"], torch.float32, ceiling, "cpu")
    assert row["extra_info"]["share"] == pytest.approx(row["extra_info"]["gigabytes_per_second"])
    row = gpu_measure.operator_row(operations["upsample_refine"], torch.float16, ceiling, "cpu")
    assert row["extra_info"]["ceiling_gflops_per_second"] == 4000


def test_ceilings() -> None:
    assert all(value > 0 for value in gpu_measure.ceilings("cpu", size=4096, side=16).values())


def test_out_of_time_and_failures_stand_in_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_measure, "ceilings", lambda device: {})
    monkeypatch.setattr(gpu, "operators", lambda ceiling, device: ([], []))
    monkeypatch.setattr(gpu, "cases", lambda: [gpu.Case("eager", 64, 48, 1), gpu.Case("ours", 64, 48, 1)])
    times = iter([0.0, 2.0])
    monkeypatch.setattr(gpu_measure, "network_row", lambda *arguments: {"stats": {"min": 1.0}, "extra_info": {}})
    rows, refused = gpu.measured(1.0, "cpu", lambda: next(times))
    assert [row["extra_info"]["suite"] for row in rows] == ["latency, small, batch 1", "memory, small, batch 1"]
    assert [entry["reason"] for entry in refused] == ["RuntimeError: no time was left"]
    assert refused[0]["row"] == "abpn_fast" and refused[0]["column"] == "64 x 48"


@pytest.mark.parametrize(
    ("code", "passed"), [("print('well')", True), ("raise SystemExit(3)", False), ("import time; time.sleep(9)", None)]
)
def test_check(code: str, passed: bool | None) -> None:
    found = gpu.check("it", [sys.executable, "-S", "-c", code], 1.0)
    assert found["passed"] is passed and found["name"] == "it"
    assert passed is not True or found["output"] == "well\n"
