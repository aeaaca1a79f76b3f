"""``python -m bench.report RESULT.json -o REPORT.md``: the tables in Markdown, and plots in ``images/`` beside it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import plots, tables
from bench.parity import MEANS, TOLERANCES
from bench.tables import Row

_NOTES = {
    "latency": "Best pass; in brackets how many times as long as `abpn_fast` in float32, in the same rounds.",
    "memory": "Peak of the process in one pass, beyond what its imports and the photo hold; the result is included.",
    "memory of strips": "The same for 512 rows at a time, photos of one width.",
    "cost per megapixel": "Best pass, and per megapixel; two passes of every size in turn.",
    "fused pyramid": """The expansion of the blend layer, without the retouching layer and image pyramid. FLOPs are
those of the convolutions computed directly, 2592 per pixel and level; the ceiling is the rate of multiply-adds on
registers, measured between the rounds.""",
    "training step": """Forward, loss and backward in training mode, best pass; in brackets how many times as long as
`abpn_fast` in float32, in the same rounds, then the most that PyTorch's allocator holds beyond weights and batch.
Gradients were compared first.""",
    "operators": """Into memory in use. Bytes are those of each tensor once; the ceiling is a copy of 512 MiB, read
and written, or the rate of multiply-adds, measured between the rounds.""",
    "retouching layer": "FLOPs as PyTorch counts them on the reference; the ceiling is the rate of multiply-adds.",
    "mask in compact regions": """Pixels whose mask is below the threshold keep the photo's. In brackets the share of
the time without a mask, in the same rounds. The retouching layer's answer is given.""",
}
_BASELINE_ON_A_GPU = "abpn_fast, float16, graphed"
_NOTES_ON_A_GPU = {
    "latency": f"""Best pass from an idle GPU on, its launch by Python included; in brackets how many times as long as
`{_BASELINE_ON_A_GPU}`.""",
    "memory": """Peak of torch's allocator in one pass, beyond the photo and the parameters; the result is included.
Recorded graphs hold their memory from the recording on and are left out.""",
    "operators": """Into memory in use, the GPU's work alone: the launch is queued before the time begins. Bytes are
those of each tensor once; the ceiling is a copy of 1 GiB, read and written, or a product of two matrices.""",
    "retouching layer": """Each step on what the steps before it make of a photo, the GPU's work alone, beside
PyTorch's operators on the same folded filters, channels last; in brackets the share of their time.""",
}
_METHOD_ON_A_GPU = """Every candidate in turn, in one process, float32 without TF32, cuDNN free to try its algorithms
for each shape. It takes part only after its result was compared with that of the float32 reference: greatest and mean
difference, white at 1, may be {tolerances}; operators are compared with float64 on a small photo. Names give the dtype
a candidate computes in and takes and gives where that is not float32.
"""
_METHOD = """Every candidate runs in a process of its own, stopped while it is not its turn; in each round each computes
the same photo. It takes part only after its result was compared with that of the float32 reference: greatest and mean
difference, white at 1, may be {tolerances}. Names give the dtype a candidate computes in where that is not float32;
images are float32 where nothing else is said; `abpn_fast` in bfloat16 takes and gives bfloat16. Photos above 8
megapixels go in two heats, `abpn_fast` in both, since all candidates together would need too much memory.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="REPORT.md")
    options = parser.parse_args()
    result = json.loads(options.result.read_text(encoding="utf-8"))
    write(result, options.output, source=options.result)
    print(f"wrote {options.output}")


def write(result: dict[str, Any], target: Path, *, source: Path) -> None:
    """Write the report on ``result``.

    Args:
        result: as from ``results.merged``, or any JSON of pytest-benchmark whose rows have ``extra_info`` like ours.
        target: the Markdown file.
        source: where the reader finds the JSON.
    """
    sections = [_head(result, source)]
    everything = result["benchmarks"] + [{"extra_info": entry} for entry in result.get("refused", [])]
    on_gpu = "cuda" in result["machine_info"]
    if on_gpu:
        _add_baselines(result["benchmarks"])
    for suite in tables.unique(row["extra_info"]["suite"] for row in everything):
        rows = [row for row in result["benchmarks"] if row["extra_info"]["suite"] == suite]
        refused = [entry for entry in result.get("refused", []) if entry["suite"] == suite]
        sections.append(_section(suite, rows, refused, target, _NOTES | (_NOTES_ON_A_GPU if on_gpu else {})))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(sections), encoding="utf-8")


def _add_baselines(rows: Sequence[Row]) -> None:
    """Where one was measured; on a CPU the rounds bring their own."""
    extras = [row["extra_info"] for row in rows]
    names = [(extra["suite"], extra.get("column"), extra["row"]) for extra in extras]
    best = {name: row["stats"]["min"] for name, row in zip(names, rows, strict=True)}
    for extra, (suite, column, _) in zip(extras, names, strict=True):
        baseline = best.get((suite, column, _BASELINE_ON_A_GPU))
        if baseline is not None:
            extra["baseline"] = baseline


def _head(result: dict[str, Any], source: Path) -> str:
    machine, commit = result["machine_info"], result.get("commit_info", {})
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    tolerances = "; ".join(f"{name} {TOLERANCES[name]:.2g} and {MEANS[name]:.2g}" for name in TOLERANCES)
    changes = " with changes" if commit.get("dirty") else ""
    built_from = f", commit {commit['id'][:10]}{changes}" if commit.get("id") else ""
    lines = [
        "# Benchmarks",
        "",
        f"{_host(machine)}; Python {machine['python']}, {versions};",
        f"{machine['date']}{built_from}. From `{source.as_posix()}` by",
        "`python -m bench.report`; `make bench` measures what has no result yet.",
        "",
        _METHOD.format(tolerances=tolerances),
    ]
    if "cuda" in machine:
        lines[4] = "`python -m bench.report`; `python -m bench.gpu` measures."
        lines[6:] = [*_warnings(result), _METHOD_ON_A_GPU.format(tolerances=tolerances)]
    return "\n".join(lines)


def _host(machine: dict[str, Any]) -> str:
    if "cuda" in machine:
        return f"{machine['processor']}, driver {machine['driver']}, CUDA {machine['cuda']}"
    host = f"{machine['processor']}, {machine['cpus']} CPUs, {machine['threads']} threads for every candidate"
    return f"{host}, instruction set of `abpn_fast` {machine['instruction_set']}"


def _warnings(result: dict[str, Any]) -> list[str]:
    """What a reader of figures of a GPU must know: checks that were not done, backends that did not run."""
    said = [
        f"{check['name']} was not done: {check['output'].rpartition(chr(10))[2]}"
        for check in result.get("checks", [])
        if check["passed"] is None
    ]
    said += result["machine_info"].get("missing_backends", {}).values()
    return [f"- **{each}**" for each in said] + [""] * bool(said)


def _section(
    suite: str, rows: Sequence[Row], refused: Sequence[dict[str, Any]], target: Path, notes: dict[str, str]
) -> str:
    kind = next((name for name in sorted(notes, key=len, reverse=True) if suite.startswith(name)), "")
    parts = [f"## {suite[0].upper()}{suite[1:]}", ""]
    if kind:
        parts += [notes[kind], ""]
    if not rows:
        parts += ["Nothing was measured.", ""]
    elif all("column" in row["extra_info"] for row in rows):
        parts += [tables.pivot(rows, refused, _cell(kind, rows), _passes(rows) if kind != "memory" else [])]
    else:
        parts += [_listed(rows)]
    if rows and kind in ("latency", "memory"):
        parts += [_plot(suite, kind, rows, target), ""]
    reasons = tables.unique(f"{entry['row']}, {entry.get('column', '')}: {entry['reason']}" for entry in refused)
    parts += [f"- not measured: {reason}" for reason in reasons] + [""] * bool(reasons)
    return "\n".join(parts)


def _cell(kind: str, rows: Sequence[Row]) -> Callable[[Row], str]:
    if kind == "latency":
        return tables.seconds_and_ratio
    if kind == "training step":
        return lambda row: f"{tables.seconds_and_ratio(row)}, {tables.megabytes(row['extra_info']['allocator_peak'])}"
    if kind in ("memory", "memory of strips"):
        return lambda row: tables.megabytes(row["extra_info"]["peak_beyond_input"])
    if kind == "cost per megapixel":
        return lambda row: (
            f"{tables.seconds(row['stats']['min'])}, "
            f"{tables.seconds(row['stats']['min'] / row['extra_info']['megapixels'])}/MP"
        )
    return tables.seconds_and_share(rows)


def _passes(rows: Sequence[Row]) -> list[str]:
    """The line of the table that says of how many passes each figure is the best."""
    rounds: dict[str, set[int]] = {}
    for row in rows:
        rounds.setdefault(row["extra_info"]["column"], set()).add(row["stats"]["rounds"])
    return ["*best of*", *("/".join(map(str, sorted(found))) for found in rounds.values())]


def _listed(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        extra, best = row["extra_info"], tables.seconds(row["stats"]["min"])
        line = [extra["row"], best, str(row["stats"]["rounds"])]
        unit = next((unit for unit in ("gflops", "gigabytes") if f"{unit}_per_second" in extra), None)
        if unit:
            short = {"gflops": "GFLOP/s", "gigabytes": "GB/s"}[unit]
            rates = [extra[f"{key}{unit}_per_second"] for key in ("", "ceiling_") if "share" in extra or not key]
            line += [f"{rate:.4g} {short}" for rate in rates]
        if "share" in extra:
            line.append(f"{extra['share']:.0%}")
        lines.append(line)
    width = max(map(len, lines))
    head = ["", "best", "of", "achieved", "ceiling", "share"][:width]
    return tables.markdown(head, [line + ["-"] * (width - len(line)) for line in lines])


def _plot(suite: str, kind: str, rows: Sequence[Row], target: Path) -> str:
    # Of docs/benchmarks.md bench-latency-small.png, of docs/benchmarks-zen4.md bench-zen4-latency-small.png.
    name = f"{target.stem.replace('benchmarks', 'bench')}-{'-'.join(suite.replace(',', '').split())}.png"
    if kind == "memory":
        label, value = "peak beyond the photo, MB", lambda row: row["extra_info"]["peak_beyond_input"] / 1e6
    else:
        label, value = "seconds", lambda row: row["stats"]["min"]
    plots.against_megapixels(rows, value, label, target.parent / "images" / name)
    return f"![{suite}: {label} against megapixels](images/{name})"


if __name__ == "__main__":
    main()
