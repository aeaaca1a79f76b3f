from __future__ import annotations

import platform
from typing import Any

import pytest
import torch

import abpn_fast


@pytest.fixture(scope="session", params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> torch.device:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device(request.param)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["torch"] = torch.__version__
    machine_info["threads"] = torch.get_num_threads()
    machine_info["abpn_fast"] = abpn_fast.__version__
    machine_info["processor"] = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
