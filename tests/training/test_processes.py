from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from abpn_fast.training.batches import Crops
from abpn_fast.training.photos import BlemishedCrops
from abpn_fast.training.processes import BatchNorm, share_statistics
from tests.training.runs import smooth, write_photos

ROOT = Path(__file__).parents[2]


def run(folder: Path, name: str, *launcher: str) -> str:
    command = [sys.executable, *launcher, "-m", "tests.training.one_run", str(folder), name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_equal_one_on_the_same_global_batch(tmp_path: Path) -> None:
    """Batch norm, dice, clipping, adversary and averages included; batches with and without a pyramid."""
    write_photos(tmp_path / "photos", range(3))
    write_photos(tmp_path / "validation", range(3, 5))
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--no_python", sys.executable)
    printed = [run(tmp_path, "one"), run(tmp_path, "two", *torchrun)]
    assert [text.count("'step': 4") for text in printed] == [1, 1]
    one, two = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.allclose(two[name], value, rtol=1e-7, atol=1e-10), name
    lines = [(tmp_path / name / "log.csv").read_text().splitlines()[-1].split(",") for name in ("one", "two")]
    assert lines[0][2:] == lines[1][2:]


def test_parts_of_a_batch_are_the_batch() -> None:
    def crops(**more: object) -> BlemishedCrops:
        return BlemishedCrops([[smooth(0)]], 9, 0, [Crops(0, 32, 4), Crops(1, 48, 2)], **more)

    for step in range(9):
        whole, parts = crops()[step], [crops(part=(which, 2))[step] for which in (0, 1)]
        assert torch.equal(torch.cat([part.image for part in parts]), whole.image)
        assert torch.equal(torch.cat([part.target for part in parts]), whole.target)
    with pytest.raises(ValueError, match=r"a batch of 2 does not divide among 4 processes"):
        crops(part=(0, 4))
    assert len(crops(factor=2, part=(0, 4))[0].image) in (1, 2)


def test_statistics_are_shared_by_several_processes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert type(share_statistics(plain, torch.device("cpu"))[1]) is nn.BatchNorm2d
    names = list(plain.state_dict())
    monkeypatch.setattr("abpn_fast.training.processes.count", lambda: 2)
    shared = share_statistics(plain, torch.device("cpu"))
    assert type(shared[1]) is BatchNorm and list(shared.state_dict()) == names


def test_batch_norm_equals_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with the same batch: the statistics are those of the batch, its size twice as large."""
    given = torch.randn(4, 5, 6, 7, dtype=torch.float64, requires_grad=True)
    theirs, ours = nn.BatchNorm2d(5).double(), BatchNorm(5).double()
    for layer in (theirs, ours):
        nn.init.uniform_(layer.weight)
    ours.load_state_dict(theirs.state_dict())
    monkeypatch.setattr("abpn_fast.training.processes.count", lambda: 2)
    monkeypatch.setattr("abpn_fast.training.processes.all_reduce", lambda x: 2 * x)
    wanted, found = theirs(torch.cat([given, given]))[:4], ours(given)
    assert torch.allclose(found, wanted, rtol=1e-12)
    for name, value in theirs.named_buffers():
        assert torch.allclose(ours.get_buffer(name), value, rtol=1e-12), name
