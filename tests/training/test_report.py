from __future__ import annotations

import csv
import json
import os
from pathlib import Path

from typer.testing import CliRunner

from abpn_fast.cli import app
from abpn_fast.training import report
from abpn_fast.training.evaluate import Row, summarise

ROWS = [
    Row("a", "model", {"psnr_inside": 30.0, "lpips_vgg": 0.1, "mask_iou": 0.5}),
    Row("a", "identity", {"psnr_inside": 20.0, "lpips_vgg": 0.2}),
    Row("a", "median", {"psnr_inside": 10.0, "lpips_vgg": 0.4}),
    Row("b", "model", {"psnr_inside": 31.0, "lpips_vgg": 0.3, "mask_iou": 1.0}),
    Row("b", "identity", {"psnr_inside": 25.0, "lpips_vgg": 0.3}),
]


def test_summary() -> None:
    means = summarise(ROWS)
    assert list(means) == ["model", "identity", "median"]
    assert means["model"] == {
        "psnr_inside": 30.5,
        "lpips_vgg": 0.2,
        "mask_iou": 0.75,
        "better": 1.0,
        "lpips_vgg_better": 0.5,
    }
    assert means["identity"] == {"psnr_inside": 22.5, "lpips_vgg": 0.25}
    assert means["median"]["better"] == means["median"]["lpips_vgg_better"] == 0


def test_text() -> None:
    head, *lines = report.text(summarise(ROWS)).splitlines()
    assert head.split() == ["model", "identity", "median"]
    cells = {line.split()[0]: line.split()[1:] for line in lines}
    assert cells["psnr_inside"] == ["30.5000", "22.5000", "10.0000"]
    assert cells["mask_iou"] == ["0.7500"]


def test_each() -> None:
    head, first, second = (line.split() for line in report.each(ROWS).splitlines())
    assert head == ["psnr_inside", "model", "identity", "median"]
    assert first == ["a", "30.000", "20.000", "10.000"] and second == ["b", "31.000", "25.000"]


def test_a_file_that_cannot_be_written_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "scores.json"
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path), "--json", str(path)])
    assert result.exit_code == 2
    assert f"no such folder: {path.parent}; {path} is to be written there" in result.stderr


def test_files(tmp_path: Path) -> None:
    report.write_json(tmp_path / "scores.json", summarise(ROWS), ROWS, model="small")
    read = json.loads((tmp_path / "scores.json").read_text())
    assert read["model"] == "small" and read["summary"] == summarise(ROWS)
    assert read["images"][2] == {"image": "a", "method": "median", "psnr_inside": 10.0, "lpips_vgg": 0.4}
    report.write_csv(tmp_path / "scores.csv", ROWS)
    with (tmp_path / "scores.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["image"] + line["method"] for line in lines] == [row.image + row.method for row in ROWS]
    assert lines[0]["mask_iou"] == "0.5" and lines[1]["mask_iou"] == ""


def test_csv_takes_any_name(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xfc.png")
    report.write_csv(tmp_path / "a.csv", [ROWS[0]._replace(image=name)])
    assert (tmp_path / "a.csv").read_bytes().splitlines()[1].startswith(b"\xfc.png,model,30.0")
