"""abpn_fast from a uint8 photo to a uint8 photo, 512 rows at a time."""

from __future__ import annotations

import functools

from bench.peers import ours

why_not = ours.why_not
prepare = functools.partial(ours.prepare, strip_rows=512)
