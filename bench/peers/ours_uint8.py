"""abpn_fast from a uint8 photo to a uint8 photo."""

from __future__ import annotations

from bench.peers import ours

why_not = ours.why_not
prepare = ours.prepare
