"""Why a compiled library is not there, in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from abpn_fast import native


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    native.why_missing.cache_clear()
    yield
    native.why_missing.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package without libraries."""
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    monkeypatch.setenv("ABPN_FAST_DISABLE_JIT", "1")
    return tmp_path


def test_an_older_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu130")
    for backend in ("cpu", "cuda"):
        reason = f"backend {backend} needs torch 2.10 or newer, got 2.9.1+cu130"
        assert native.why_missing(backend) == reason


@pytest.mark.parametrize("version", ["2.10.0", "2.10.0a0+git1", "2.10+own", "3.0.0.dev1"])
def test_a_torch_that_will_do(version: str, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    assert "torch 2.10 or newer" not in str(native.why_missing())


def test_not_compiled(package: Path) -> None:
    # Of a CUDA library alone.
    (package / "_C_cuda.abi3.so").touch()
    assert str(native.why_missing()).startswith("backend cpu is not compiled; with torch and a C++17 compiler at hand")
    (package / "_C_cuda.abi3.so").unlink()
    assert "ABPN_FAST_DISABLE_JIT=1 forbids" in str(native.why_missing("cuda"))


def test_a_library_that_does_not_load(package: Path) -> None:
    (package / "_C.abi3.so").write_text("something else")
    reason = native.why_missing()
    assert reason is not None and reason.startswith("backend cpu does not load _C.abi3.so: ")
    assert not reason.endswith(": ")
