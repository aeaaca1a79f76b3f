"""What ``import abpn_fast`` does, and that everything but photo files works on a machine that has nothing but torch."""

from __future__ import annotations

import os
import subprocess
import sys

IMPORT = """
import sys
import abpn_fast
assert "torch" not in sys.modules
"""
NAMES = """
import torch
before = set(sys.modules)
for name in ("ABPN", "ABPNConfig", "Retouched", "compatible_backends", "ops", "reference", "use_backend", "why_not"):
    getattr(abpn_fast, name)
loaded = set(sys.modules) - before
heavy = {"triton", "typer", "rich", "PIL", "pyvips", "lightning", "lightning_fabric", "setuptools", "torch._dynamo"}
assert not loaded & heavy, loaded & heavy
assert not torch.cuda.is_initialized()
"""
HIDE = """
import sys
for name in ("triton", "PIL", "typer", "rich", "lightning_fabric"):
    sys.modules[name] = None
"""
RUN = """
image = torch.rand(1, 3, 9, 7)
assert abpn_fast.ops.pyramid_down(image).shape == (1, 3, 5, 4)
model = abpn_fast.ABPN(abpn_fast.ABPNConfig(encoder_widths=(4, 4, 4, 4, 4, 4))).eval()
assert model(image).shape == image.shape
assert "reference" in abpn_fast.compatible_backends(image)
assert not torch.cuda.is_initialized()
"""


PHOTO = """
import abpn_fast
try:
    abpn_fast.retouch_file
except ModuleNotFoundError as error:
    assert str(error).endswith("which is not installed; pip install 'abpn_fast[photo]'") and error.name == "PIL"
else:
    raise AssertionError("it was imported")
"""


def python(code: str, **environment: str) -> None:
    inherited = {name: os.environ[name] for name in ("PYTHONPATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    run = subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_import_is_light() -> None:
    python(IMPORT + NAMES)


def test_nothing_but_torch_is_needed() -> None:
    python(HIDE + IMPORT + NAMES + RUN, PATH="", CUDA_HOME="/nonexistent", CXX="/nonexistent/c++")


def test_photo_files_ask_for_pillow_by_its_extra() -> None:
    python(HIDE + PHOTO)
