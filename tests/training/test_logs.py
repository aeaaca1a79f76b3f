from __future__ import annotations

from pathlib import Path

import pytest
import torch

from abpn_fast import accelerate
from abpn_fast.training.batches import Pair
from abpn_fast.training.logs import Logs, sheet
from tests.reference.networks import network, photo


def write(folder: Path, first: int, steps: list[int]) -> None:
    with Logs(folder, first, 9) as logs:
        for step in steps:
            logs.measured({"step": step, "loss": step / 4})


@pytest.mark.parametrize("torn", ["", "6,1", "6,1.5"])
def test_lines_beyond_the_checkpoint_are_written_once(tmp_path: Path, torn: str) -> None:
    write(tmp_path, 0, [2, 4, 6])
    path = tmp_path / "log.csv"
    if torn:
        path.write_bytes(path.read_bytes().replace(b"6,1.5\r\n", torn.encode()))
    write(tmp_path, 4, [6, 8])
    assert path.read_bytes() == b"step,loss\r\n2,0.5\r\n4,1\r\n6,1.5\r\n8,2\r\n"
    write(tmp_path, 0, [3])
    assert path.read_bytes() == b"step,loss\r\n3,0.75\r\n"


def test_a_torn_line_of_the_checkpoint_itself_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, 0, [2, 4])
    path = tmp_path / "log.csv"
    path.write_bytes(path.read_bytes() + b"6,1")
    write(tmp_path, 6, [8])
    assert path.read_bytes() == b"step,loss\r\n2,0.5\r\n4,1\r\n8,2\r\n"


def test_tensorboard_has_numbers_and_pictures(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    picture = photo(20, 30, dtype=torch.uint8)
    model = accelerate(network())
    with Logs(tmp_path, 0, 9) as logs:
        logs.measured({"step": 3, "loss": 0.5})
        logs.pictures(model, [Pair(picture, picture, 1)], 3)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 0.5)]
    (image,) = events.Images("pair 0")
    # Input, result, target, mask, B_0, B_1.
    assert (image.step, image.height, image.width) == (3, 256, 6 * 384)


def test_sheet() -> None:
    image, target = photo(20, 30, dtype=torch.uint8), photo(20, 30, dtype=torch.uint8)
    shown = sheet(accelerate(network()), Pair(image, target, 2))
    assert shown.shape == (3, 256, 7 * 384) and shown.min() >= 0 and shown.max() <= 1
    for column, picture in ((0, image), (2, target)):
        part = shown[:, :, 384 * column : 384 * (column + 1)]
        assert (part.mean() - picture.float().mean() / 255).abs() < 0.01


def test_a_million_steps(tmp_path: Path) -> None:
    write(tmp_path, 0, [999_999, 1_000_000])
    path = tmp_path / "log.csv"
    assert path.read_bytes().startswith(b"step,loss\r\n999999,250000\r\n1000000,")
    # As it was written once.
    path.write_bytes(path.read_bytes().replace(b"1000000", b"1e+06"))
    write(tmp_path, 1_000_000, [1_000_001])
    assert [line.split(b",")[0] for line in path.read_bytes().splitlines()] == [
        b"step",
        b"999999",
        b"1e+06",
        b"1000001",
    ]


def test_other_columns_begin_another_file(tmp_path: Path) -> None:
    write(tmp_path, 0, [2, 4])
    before = (tmp_path / "log.csv").read_bytes()
    with Logs(tmp_path, 4, 9) as logs:
        logs.measured({"step": 6, "inside": 0.5})
        logs.measured({"step": 8, "inside": 0.25})
    assert (tmp_path / "log-until-4.csv").read_bytes() == before
    assert (tmp_path / "log.csv").read_bytes() == b"step,inside\r\n6,0.5\r\n8,0.25\r\n"
