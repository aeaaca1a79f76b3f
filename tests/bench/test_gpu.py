"""What of the GPU's benchmark can be tried without one."""

from __future__ import annotations

import contextlib
import gc
import inspect
import itertools
import json
import subprocess
import sys
import time
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from _pytest.mark.expression import Expression

import abpn_fast
from abpn_fast import backends
from bench import gpu, gpu_candidates, gpu_layer, gpu_measure, peak, pyramid
from tests.backends import sanitize_cuda

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
    assert found[0] == gpu.Case("ours_float16", 4096, 4096, 1, "base")
    assert {case[:4] for case in found if case.network == "base"} < {
        case[:4] for case in found if case.network == "small"
    }
    compiled = [case.candidate in ("compiled", "autotuned") for case in found]
    assert compiled == sorted(compiled)
    for name in ("ours", "eager"):
        shapes = {case[1:4] for case in found if case.candidate == name}
        assert shapes == {(*size, batch) for size in gpu.SIZES for batch in (1, 4)}


@pytest.mark.parametrize("name", gpu_candidates.NETWORKS)
def test_a_label_says_what_runs(name: str) -> None:
    candidate = gpu_candidates.NETWORKS[name]
    dtype = next((dtype for dtype in ("bfloat16", "float16") if dtype in candidate.label), "float32")
    assert str(candidate.dtype) == f"torch.{dtype}"
    assert (candidate.image == torch.uint8) == ("uint8" in candidate.label)
    assert candidate.graphed == any(word in candidate.label for word in ("graph", "max-autotune"))
    found = gpu.described(gpu.Case(name, 1000, 500, 4))
    assert found["ours"] == candidate.label.startswith("abpn_fast") and found["megapixels"] == 2


@pytest.mark.parametrize(
    ("name", "mode"), [("eager_half", None), ("compiled", "default"), ("autotuned", "max-autotune")]
)
def test_channels_last_and_compiled_as_the_label_says(
    name: str, mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda model, **options: seen.append(options["mode"]) or model)
    model = torch.nn.Conv2d(3, 3, 3)
    model.register_forward_pre_hook(lambda module, given: seen.extend([*given, module.weight]))
    gpu_candidates.prepared(gpu_candidates.NETWORKS[name], model, torch.rand(1, 3, 6, 8))()
    assert seen[:-2] == ([] if mode is None else [mode])
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in seen[-2:])


def test_what_is_given_belongs_to_the_case(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(gpu.networks, "network", lambda name: made.append(name) or torch.nn.Identity())
    given = gpu.Given("cpu")
    for case in (
        *(gpu.Case("eager", 8, 6, 1), gpu.Case("ours", 8, 6, 1)),
        *(gpu.Case("ours", 8, 6, 1, "base"), gpu.Case("ours", 8, 6, 2, "base")),
    ):
        image, expected = given.of(case)
        assert image.shape == expected.shape == (case.batch, 3, 6, 8)
    assert made == ["small", "base", "base"]


def test_photos_of_a_batch_differ() -> None:
    found = gpu_measure.photos(6, 8, 4, "cpu")
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(found, 2))


@pytest.mark.parametrize("name", CPU)
def test_network_row(name: str) -> None:
    image = gpu_measure.photos(512, 512, 1, "cpu")
    candidate = gpu_candidates.NETWORKS[name]
    expected = gpu_measure.networks.network("small")(image)
    row = gpu_measure.network_row(candidate, "small", image, expected)
    assert row["stats"]["min"] <= row["stats"]["median"] and row["stats"]["rounds"] >= 3
    assert row["extra_info"]["peak_beyond_input"] > 512 * 512 * 3
    wrong = gpu_measure.network_row(candidate, "small", image, expected + 0.02)
    assert "differs" in wrong["refusal"]


def test_a_graphed_candidate_has_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_measure, "timed", lambda call, device: {"min": 1.0})
    image = gpu_measure.photos(512, 512, 1, "cpu")
    expected = gpu_measure.networks.network("small")(image)
    candidate = gpu_candidates.NETWORKS["eager"]._replace(graphed=True)
    row = gpu_measure.network_row(candidate, "small", image, expected)
    (found,) = gpu.in_suites(gpu.described(gpu.Case("eager_graphed", 512, 512, 1)), row)
    assert found["extra_info"]["suite"] == "latency, small, batch 1"
    assert {name for name, each in gpu_candidates.NETWORKS.items() if each.graphed} == {
        "ours_graphed",
        "eager_graphed",
        "autotuned",
    }


class Device:
    """Stands in for ``torch.cuda`` and writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def ask(*arguments: Any, **options: Any) -> Any:
            self.asked.append(name)
            return contextlib.nullcontext(self) if name in ("stream", "graph") else self

        return ask

    def elapsed_time(self, other: Any) -> float:
        return 2.0


@pytest.mark.parametrize("queued", [False, True])
def test_what_a_round_waits_for(queued: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    monkeypatch.setattr(torch, "cuda", device)
    assert gpu_measure._once(device.call, "cuda", queued) == 0.002
    rounds = ["Event", "Event", "synchronize", *["_sleep"] * queued, "record", "call", "record", "synchronize"]
    assert device.asked == rounds


def test_best_and_median_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([1.0, 5.0, 2.0, 9.0, *[1e-9] * 100])
    monkeypatch.setattr(gpu_measure, "_once", lambda *_: next(seconds))
    assert gpu_measure.timed(lambda: None, "cuda") == {"min": 2.0, "median": 5.0, "rounds": 3}
    assert gpu_measure.timed(lambda: None, "cuda")["rounds"] == 50


def test_the_peak_of_a_call_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory(Device):
        held, most = 5, 100

        def memory_allocated(self, device: torch.device) -> int:
            return self.held

        def reset_peak_memory_stats(self, device: torch.device) -> None:
            self.most = self.held

        def max_memory_allocated(self, device: torch.device) -> int:
            return self.most

    def call() -> None:
        memory.most = max(memory.most, memory.held + 7)

    memory = Memory()
    monkeypatch.setattr(torch, "cuda", memory)
    assert peak.peak_bytes(call, torch.device("cuda")) == 7


def test_only_operators_are_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    stats = {"min": 1.0, "median": 1.0, "rounds": 3}
    monkeypatch.setattr(
        gpu_measure, "timed", lambda call, device, queued=False, **options: asked.append(queued) or stats
    )
    gpu_measure.operator_row(gpu_candidates.Operation(lambda: None, 1), torch.float32, {}, "cpu")
    test_network_row("eager")
    assert asked == [True, False]


def test_a_replayed_network_lives_as_long_as_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device()
    monkeypatch.setattr(torch, "cuda", device)
    model, image = torch.nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 4, 4)
    alive = weakref.ref(model)
    call = gpu_candidates._graphed(model, image)
    del model
    gc.collect()
    assert alive() is not None
    seen = []
    copy_ = torch.Tensor.copy_
    monkeypatch.setattr(torch.Tensor, "copy_", lambda self, other: seen.append(other) or copy_(self, other))
    call()
    assert [each is image for each in seen] == [True] and device.asked[-1] == "replay"
    del call
    gc.collect()
    assert alive() is None


@torch.no_grad()
def test_operators_write_what_the_model_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyramid.reference, "default_levels", lambda height, width: 2)
    operations = gpu._operations(70, torch.float32, "cpu")
    for operation in operations.values():
        operation.call()
    photo, weights, coefficients = 3 * 4 * 70 * 70, 4 * (16 * 54 + 16 + 3 * 144 + 3), 4 * 6
    refined = photo * 5 // 2 + weights
    assert {name: operation.moved for name, operation in operations.items()} == {
        "adaptive_blend": 3 * photo + coefficients,
        "reverse_adaptive_blend": 3 * photo + coefficients,
        "pyramid_down": photo * 5 // 4,
        "laplacian_decompose": photo * 9 // 4,
        "upsample_refine": refined,
        "upsample_refine_blend": refined + coefficients,
        "fused pyramid, all levels": refined + coefficients,
    }
    assert {name: operation.flops / 2592 for name, operation in operations.items() if operation.flops} == {
        "upsample_refine": 70 * 70,
        "upsample_refine_blend": 70 * 70,
        "fused pyramid, all levels": 70 * 70 + 35 * 35,
    }
    ceiling = {"copy": 1e9, "float32": 1e12, "float16": 4e12}
    row = gpu_measure.operator_row(operations["pyramid_down"], torch.float32, ceiling, "cpu")
    assert row["extra_info"]["share"] == pytest.approx(row["extra_info"]["gigabytes_per_second"])
    row = gpu_measure.operator_row(operations["upsample_refine"], torch.float16, ceiling, "cpu")
    assert row["extra_info"]["ceiling_gflops_per_second"] == 4000
    row = gpu_measure.operator_row(operations["pyramid_down"], torch.float32, {}, "cpu")
    assert list(row["extra_info"]) == ["gigabytes_per_second"]


@torch.no_grad()
def test_operators_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype in (torch.float32, torch.float16):
        assert gpu_measure.operators_that_differ(dtype, "cpu", 96) == {}
    down, blend = abpn_fast.ops.pyramid_down, abpn_fast.ops.adaptive_blend

    def wrong(image: torch.Tensor, **options: Any) -> torch.Tensor:
        result = down(image, **options)
        return result if backends.requested(None) == "reference" else result.add_(1e-3)

    def failing(*arguments: Any, **options: Any) -> torch.Tensor:
        if backends.requested(None) != "reference":
            raise RuntimeError("out of registers\nand more")
        return blend(*arguments, **options)

    monkeypatch.setattr(gpu_candidates.ops, "pyramid_down", wrong)
    monkeypatch.setattr(gpu_candidates.ops, "adaptive_blend", failing)
    p = pyramid.Pyramid(96, 96, torch.float32)
    monkeypatch.setattr(gpu_measure, "Pyramid", lambda *arguments: p)
    found = gpu_measure.operators_that_differ(torch.float32, "cpu", 96)
    assert set(found) == {"pyramid_down", "adaptive_blend"}
    assert "96 x 96 photo: off by 0.001" in found["pyramid_down"]
    assert found["adaptive_blend"] == "RuntimeError: out of registers"


@torch.no_grad()
def test_the_layer_step_by_step(tmp_path: Path) -> None:
    options = {"dtype": torch.float32, "backend": "reference", "side": 64}
    gpu.time_layer(record(tmp_path), "small", **options)
    found = written(tmp_path)
    names = [(row["extra_info"]["row"], row["extra_info"]["column"]) for row in found["benchmarks"]]
    # Six blocks of the encoder, four of the mask, six attentive modules, and the whole; graphs need a GPU.
    assert len(names) == 2 * 17 == len(set(names))
    assert names[0] == ("encoder, 3 to 16 channels, 32 x 32", "PyTorch")
    assert names[-3] == ("attention, 16 + 3 + 1 to 3 channels, 64 x 64", "abpn_fast")
    assert [entry["row"] for entry in found["refused"]] == ["whole, CUDA graph"]


@torch.no_grad()
def test_a_wrong_step_is_not_timed() -> None:
    layer = gpu_layer.whole("small", torch.float32, "cpu", "reference", 64)
    step = next(gpu_layer.steps(layer))
    assert set(gpu_layer.step_rows(step, "cpu")) == {"PyTorch", "abpn_fast"}
    assert "differs" in gpu_layer.step_rows(step._replace(ours=lambda: step.plain() + 1e-3), "cpu")["refusal"]
    doubled = [lambda *arguments, last=last: 2 * last(*arguments) for last in layer.ours.attention]
    wrong = layer._replace(ours=layer.ours._replace(attention=doubled))
    assert "differs" in gpu_layer.whole_rows(wrong, "cpu", graphed=False)["refusal"]


@torch.no_grad()
def test_the_layer_stands_beside_pytorchs_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(gpu_layer.low_res, "steps", lambda folded, backend: asked.append(backend) or backend)
    layer = gpu_layer.whole("small", torch.float32, "cpu", side=64)
    assert (layer.plain, layer.ours) == ("reference", "cuda")


def test_a_rate_is_of_the_best_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_measure, "timed", lambda *_, **__: {"min": 2.0, "median": 4.0})
    operation, ceiling = gpu_candidates.Operation(lambda: None, 10), {"copy": 20.0}
    found = gpu_measure.operator_row(operation, torch.float16, ceiling, "cpu")["extra_info"]
    assert found["gigabytes_per_second"] == pytest.approx(5e-9) and found["share"] == 0.25


def test_times_stand_in_the_column_of_what_was_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_measure, "timed", lambda call, device, queued=False: (call(), queued))
    found = gpu_layer._timed(lambda: "theirs", lambda: "ours", "cpu")
    assert found == {"PyTorch": ("theirs", True), "abpn_fast": ("ours", True)}


@pytest.mark.parametrize("name", ["ours_uint8", "float16"])
def test_warm(name: str) -> None:
    gpu_candidates.warm(name, 300, 270, 1, "cpu")


def test_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(value > 0 for value in gpu_measure.ceilings("cpu", size=4096, side=16).values())
    multiplied: list[torch.dtype] = []
    monkeypatch.setattr(torch, "mm", lambda a, b, out: multiplied.append(a.dtype))
    monkeypatch.setattr(gpu_measure, "timed", lambda call, device, queued: (call(), {"min": 2.0})[1])
    assert gpu_measure.ceilings("cpu", size=4096, side=8) == {"copy": 4096, "float16": 512, "float32": 512}
    assert multiplied == [torch.float16, torch.float32]


def record(folder: Path, times: Iterable[float] = itertools.repeat(0.0), device: str = "cpu") -> gpu.Record:
    """With a deadline of 1 s."""
    times = iter(times)
    return gpu.Record(folder / "gpu.json", {"processor": "x"}, 1.0, device=device, clock=lambda: next(times))


def written(folder: Path) -> dict[str, Any]:
    assert [file.suffix for file in folder.iterdir()] == [".json"]
    return json.loads((folder / "gpu.json").read_text())


def test_out_of_time_and_failures_stand_in_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "time_operators", lambda record: None)
    monkeypatch.setattr(gpu, "time_layer", lambda record, network: None)
    cases = [gpu.Case("eager", 64, 48, 1), gpu.Case("compiled", 64, 48, 1), gpu.Case("ours", 64, 48, 1)]
    monkeypatch.setattr(gpu, "cases", lambda: cases)
    row = {"stats": {"min": 1.0}, "extra_info": {"peak_beyond_input": 3}}
    monkeypatch.setattr(gpu_measure, "network_row", lambda *arguments: row)
    gpu.measured(record(tmp_path, [0.0, 0.0, 2.0]))
    found = written(tmp_path)
    suites = [row["extra_info"]["suite"] for row in found["benchmarks"]]
    assert suites == ["latency, small, batch 1", "memory, small, batch 1"]
    assert [entry["reason"] for entry in found["refused"]] == ["TimeoutError: no time was left"] * 2
    assert found["refused"][1]["row"] == "abpn_fast" and found["refused"][1]["column"] == "64 x 48"


def test_every_row_is_on_the_disk_before_the_next(tmp_path: Path) -> None:
    growing = record(tmp_path)
    for count in range(3):
        growing.add({"name": "one"})
        assert len(written(tmp_path)["benchmarks"]) == count + 1
    assert growing.attempt({"row": "a"}, lambda: {"refusal": "differs"}) is None
    assert growing.attempt({"row": "b"}, int, "no number") is None
    reasons = [entry["reason"] for entry in written(tmp_path)["refused"]]
    assert reasons == ["differs", "ValueError: invalid literal for int() with base 10: 'no number'"]


def test_a_broken_gpu_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    growing = record(tmp_path, device="cuda")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    growing.attempt({"row": "a"}, int, "one bad row")

    def broken() -> None:
        raise RuntimeError("illegal memory access\nCompile with ...")

    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    with pytest.raises(gpu.BrokenGPU, match=r"RuntimeError: illegal memory access$"):
        growing.attempt({"row": "b"}, int, "the last")
    assert [entry["row"] for entry in written(tmp_path)["refused"]] == ["a", "b", "all that follows"]


def test_one_bad_operator_or_no_ceilings_leave_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ceilings(device: str) -> None:
        raise MemoryError("too large")

    def bad() -> None:
        raise RuntimeError("no kernel")

    operations = {"a": gpu_candidates.Operation(bad, 1)}
    operations |= {name: gpu_candidates.Operation(lambda: None, 1) for name in "bc"}
    monkeypatch.setattr(gpu_measure, "ceilings", no_ceilings)
    monkeypatch.setattr(gpu_measure, "operators_that_differ", lambda dtype, device: {"b": "differs by 1"})
    monkeypatch.setattr(gpu, "_operations", lambda side, dtype, device: operations)
    gpu.time_operators(record(tmp_path))
    found = written(tmp_path)
    assert [row["extra_info"]["row"] for row in found["benchmarks"]] == ["c, float16", "c, float32"]
    assert [(entry["row"], entry["reason"]) for entry in found["refused"]] == [
        ("ceilings", "MemoryError: too large"),
        ("a, float16", "RuntimeError: no kernel"),
        ("b, float16", "differs by 1"),
        ("a, float32", "RuntimeError: no kernel"),
        ("b, float32", "differs by 1"),
    ]


@pytest.mark.parametrize("code", [0, 3])
def test_check(code: int, tmp_path: Path) -> None:
    program = f"import os; [print(i) for i in range(99)]; print(os.environ['COLOUR']); raise SystemExit({code})"
    found = gpu.check("it", [sys.executable, "-S", "-c", program], 60.0, tmp_path, COLOUR="red")
    assert found["passed"] is (code == 0) and found["name"] == "it"
    lines = [*map(str, range(99)), "red"]
    assert found["output"].splitlines() == lines[-40:]
    assert (tmp_path / found["log"]).read_text().splitlines() == lines


def test_a_check_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    program = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
print(child.pid)
time.sleep(60)
"""
    found = gpu.check("it", [sys.executable, "-S", "-c", program], 2.0, tmp_path)
    child, told = found["output"].splitlines()
    assert found["passed"] is None and told == "not done after 2 s"
    for _ in range(50):
        # Ended, or waiting for whoever adopted it.
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail("the check's child lives")


def main(folder: Path, monkeypatch: pytest.MonkeyPatch, *passed: bool | None) -> list[gpu.Record]:
    """``gpu.main`` with checks that ended so; what was to be timed."""
    timed: list[gpu.Record] = []
    found = [{"name": f"check {i}", "passed": each, "output": ""} for i, each in enumerate(passed)]
    monkeypatch.setattr(sys, "argv", ["bench.gpu", str(folder), "--seconds", "100"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "gpu")
    replaced = {"why_not": None, "settings": {}, "information": {}, "tests": found[0], "sanitizer": found[1:]}
    for name, value in replaced.items():
        monkeypatch.setattr(gpu, name, lambda *arguments, value=value: value)
    warming: list[float] = []
    monkeypatch.setattr(gpu, "warmed", lambda folder, left: warming.append(left) or {"passed": True})
    monkeypatch.setattr(gpu, "measured", timed.append)
    gpu.main()
    assert 45 < warming[0] <= 50, "half of the time is for what is timed"
    return timed


def test_a_failed_check_is_told_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"check 1 failed; the logs are beside"):
        main(tmp_path, monkeypatch, True, False)
    found = written(tmp_path)
    assert found["refused"][0]["reason"] == "failed: check 1"
    assert found["machine_info"]["failed"] == ["check 1"]


@pytest.mark.parametrize("passed", [(True, None), (True, True)])
def test_timed_although_a_check_was_not_done(
    passed: tuple[bool | None, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (timed,) = main(tmp_path, monkeypatch, *passed)
    assert 90 < timed.left <= 100
    unchecked = ["check 1"] if None in passed else []
    assert written(tmp_path)["machine_info"]["unchecked"] == unchecked
    assert ("unchecked: check 1" in capsys.readouterr().out) == bool(unchecked)


def test_float32_stays_float32() -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    try:
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = False, True, True
        assert gpu.settings() == {"cudnn_benchmark": True, "tf32": False}
        assert cudnn.benchmark and not cudnn.allow_tf32 and not matmul.allow_tf32
    finally:
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before


def test_what_cannot_run_is_in_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.zeros(1, 3, 2, 2)
    monkeypatch.setattr(torch, "empty", lambda *shape, device: image)
    monkeypatch.setattr(gpu, "driver", lambda: "1")
    reasons = {"triton": None, "cuda": "not compiled"}
    monkeypatch.setattr(abpn_fast, "why_not", lambda name, tensor, operator: reasons[name])
    assert gpu.information()["missing_backends"] == {"cuda": "not compiled"}


def test_which_tests_run_on_the_gpu() -> None:
    selects = Expression.compile(gpu._TESTS_ON_THE_GPU)

    def chosen(*names: str) -> bool:
        return selects.evaluate(lambda word, **_: any(word.lower() in name.lower() for name in names))

    assert chosen("test_pyramid_down.py", "test_batch[cuda-triton-1]")
    assert chosen("test_gated_conv.py", "test_batch[cuda-cuda-1]")
    assert not chosen("test_pyramid_down.py", "test_batch[cuda-reference-1]")
    assert not chosen("test_pyramid_down.py", "test_batch[cpu-cpu-1]")
    assert chosen("test_cuda.py", "TestOnTheGPU", "test_graph")
    assert not chosen("test_cuda.py", "TestChoice", "test_for_amd")
    for file in ("test_graphed.py", "test_parity.py"):
        assert chosen(file, "test_anything") and any(each.endswith(file) for each in gpu._TEST_FILES)


@pytest.mark.parametrize("parallel", [False, True])
def test_the_tests_on_the_gpu(parallel: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "check", lambda name, command, limit, folder, **environment: (command, limit))
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: parallel or None)
    command, limit = gpu.tests(tmp_path, 500)
    assert limit == gpu.TESTS and ("-n" in command) is parallel and "-x" not in command
    assert gpu.tests(tmp_path, 7)[1] == 7
    assert all((Path(__file__).parents[2] / file).exists() for file in gpu._TEST_FILES)


@pytest.mark.parametrize(
    ("said", "passed"), [("Device not supported", None), ("ERROR SUMMARY: 1 error", False)], ids=["gvisor", "error"]
)
def test_sanitizer(said: str, passed: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "compute-sanitizer"
    asked = 'while [ "$1" ]; do [ "$1" = --error-exitcode ] && exit $2; shift; done'
    tool.write_text(f"#!/bin/sh\necho '{said}' $PYTORCH_NO_CUDA_MEMORY_CACHING\n{asked}\n")
    tool.chmod(0o700)
    monkeypatch.setattr(gpu.shutil, "which", lambda name: str(tool))
    found = gpu.sanitizer(tmp_path, 60.0)
    assert [(each["name"], each["passed"]) for each in found] == [("memcheck", passed), ("racecheck", passed)]
    assert all(each["output"].startswith(f"{said} 1") for each in found)


def test_the_sanitizer_has_no_more_than_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    monkeypatch.setattr(gpu.shutil, "which", lambda name: "compute-sanitizer")
    done = {"passed": True, "output": ""}
    monkeypatch.setattr(gpu, "check", lambda name, command, limit, folder, **_: limits.append(limit) or done)
    for left in (500.0, 7.0):
        gpu.sanitizer(tmp_path, left)
    assert limits == [gpu.SANITIZER] * 2 + [7.0] * 2


_PYTORCHS = "=== Error: Race reported between Write access at void at::native::reduce_kernel<512, 1>(T3)+0xfc0"


@pytest.mark.parametrize(
    ("lines", "passed"),
    [
        ([_PYTORCHS, "all passes done"], None),
        ([_PYTORCHS], False),
        (
            [_PYTORCHS, "===   and Read access at void abpn::gated::gated_conv<K, 2>(Task)+0x40", "all passes done"],
            False,
        ),
        ([_PYTORCHS, "=== Write access at void abpn::gated::gated_gradient<float, 4>(Task)", "all passes done"], False),
        ([_PYTORCHS, "===   and Read access at kernel+0x40 in kernels/refine.py:147", "all passes done"], False),
        (["ERROR SUMMARY: 1 error", "all passes done"], False),
    ],
    ids=["theirs", "not done", "gated_conv", "gradient", "triton", "no race"],
)
def test_races_of_others(
    lines: list[str], passed: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "said").write_text("\n".join(lines))
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f"#!/bin/sh\ncat {tmp_path / 'said'}\nexit 9\n")
    tool.chmod(0o700)
    monkeypatch.setattr(gpu.shutil, "which", lambda name: str(tool))
    assert [each["passed"] for each in gpu.sanitizer(tmp_path, 60.0)] == [False, passed]
    assert gpu._DONE in inspect.getsource(sanitize_cuda.main)


def test_no_sanitizer_and_no_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.driver() is None
    assert gpu.sanitizer(tmp_path, 60.0) == [{"name": "compute-sanitizer", "passed": None, "output": "not on the path"}]
