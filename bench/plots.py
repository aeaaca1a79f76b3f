"""Time and memory against megapixels, one line per candidate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.tables import Row, unique

# Okabe and Ito's palette, told apart by colour-blind readers, and a marker each for print.
_COLOURS = ["#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#D55E00"]
_COLOURS += ["#E69F00", "#000000", "#999999", "#8C6D31", "#5E3C99"]
_MARKERS = "osD^vP*Xhd"


def against_megapixels(rows: Sequence[Row], value: Callable[[Row], float], label: str, file: Path) -> None:
    """Write a PNG with logarithmic axes; ours in solid lines, peers in dashed ones."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(figsize=(9, 5.2), dpi=110, layout="constrained")
    for i, name in enumerate(unique(row["extra_info"]["row"] for row in rows)):
        line = sorted((r["extra_info"]["megapixels"], value(r)) for r in rows if r["extra_info"]["row"] == name)
        ours = any(r["extra_info"].get("ours") for r in rows if r["extra_info"]["row"] == name)
        colour, marker = _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]
        style = {"linewidth": 2.4, "linestyle": "-"} if ours else {"linewidth": 1.4, "linestyle": "--"}
        axes.plot(*zip(*line, strict=True), label=name, color=colour, marker=marker, **style)
    axes.set(xscale="log", yscale="log", xlabel="megapixels", ylabel=label)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ticker.FuncFormatter(lambda number, _: f"{number:g}"))
    axes.grid(which="major", color="#dddddd")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    pyplot.close(figure)
