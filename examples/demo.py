"""Retouch the example portrait at its full 14 megapixels; say where to look, how long it took, in how much memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from PIL import Image

from abpn_fast import ABPN
from abpn_fast.photo import compare, retouch_file

PORTRAIT = Path(__file__).parent / "portrait.jpg"
FOLDER = Path("demo")
# The face at full size: the eyes, the stubble and most of the moles.
FACE = (1240, 640, 2480, 1920)
# One fewer than the default: the face is a quarter of this half-length portrait.
LEVELS = 1


def main() -> None:
    """Write the pictures below ``demo/``."""
    model = ABPN.from_pretrained("small")
    before = _peak()
    FOLDER.mkdir(exist_ok=True)
    result, sheet = FOLDER / "portrait.jpg", FOLDER / "portrait.compare.jpg"
    report = retouch_file(PORTRAIT, result, model=model, levels=LEVELS, overwrite=True, compare=sheet)
    after = _peak()
    face = FOLDER / "portrait.face.jpg"
    with Image.open(PORTRAIT) as old, Image.open(result) as new:
        compare(old.crop(FACE), new.crop(FACE)).save(face, quality=92)
    width, height = report.size
    print(f"retouched {PORTRAIT}, {width} x {height}, on backend {report.backend} with {report.levels} levels")
    print(f"  result                  {result}")
    print(f"  before, after, changed  {sheet}")
    print(f"  the face at full size   {face}")
    print(f"  time                    {report.seconds:.1f} s, reading and writing files included")
    print(f"  peak memory             {after:.0f} MB, {after - before:.0f} MB above the loaded program")


def _peak() -> float:
    """The largest resident size of this process so far, in MB."""
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    main()
