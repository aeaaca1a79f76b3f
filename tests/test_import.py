"""What ``import abpn_fast`` does on a machine that has nothing but torch."""

from __future__ import annotations

import os
import subprocess
import sys

HIDE = """
import sys
for name in ("triton", "PIL", "typer", "rich", "lightning_fabric"):
    sys.modules[name] = None
"""
REPORT = """
import sys, torch
before = set(sys.modules)
import abpn_fast
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
heavy = {"triton", "typer", "rich", "PIL", "pyvips", "lightning", "lightning_fabric", "setuptools", "matplotlib"}
assert not loaded & heavy, loaded & heavy
assert "torch._dynamo" not in set(sys.modules) - before
assert not torch.cuda.is_initialized()
"""
RUN = """
image = torch.rand(1, 3, 9, 7)
assert abpn_fast.ops.pyramid_down(image).shape == (1, 3, 5, 4)
model = abpn_fast.reference.ABPN(abpn_fast.ABPNConfig(encoder_widths=(4, 4, 4, 4, 4, 4))).eval()
assert model(image).shape == image.shape
assert "reference" in abpn_fast.compatible_backends(image)
assert not torch.cuda.is_initialized()
"""


def python(code: str, **environment: str) -> None:
    inherited = {name: os.environ[name] for name in ("PYTHONPATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    run = subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_import_is_light() -> None:
    python(REPORT)


def test_nothing_but_torch_is_needed() -> None:
    python(HIDE + REPORT + RUN, PATH="", CUDA_HOME="/nonexistent", CXX="/nonexistent/c++")
