"""Rounds in which every candidate computes the same photo once, so that a drift of the machine hits all alike."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from bench.peers import CANDIDATES
from bench.worker import Worker, expected_result

Found = dict[str, dict[str, Any]]
# With which all are compared; it takes part in every heat.
BASELINE = "ours"
# Above these pixels the memory of all candidates at once is too much for a small machine.
_LARGE = 8_000_000
_FOREIGN = ("onnxruntime", "openvino", "openvino_bf16")
_HEATS = [[name for name in CANDIDATES if name not in _FOREIGN], [BASELINE, *_FOREIGN]]


class Contest:
    """The processes of the candidates, kept from photo to photo."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self._last: tuple[Any, Found] = None, {}

    def measure(self, network: str, width: int, height: int, rounds: int, passes: int) -> Found:
        """For each candidate ``refusal``, a sentence, or what was measured.

        That is ``seconds``, of every pass; ``baseline``, the least of ``BASELINE`` in the same rounds; ``largest`` and
        ``mean``, its difference from the reference. The last answer is kept for whoever asks the same again.

        Args:
            network, width, height: what is computed.
            rounds: turns of every candidate.
            passes: in a row in each turn.
        """
        question = network, width, height, rounds, passes
        if self._last[0] != question:
            found: Found = {}
            with expected_result(self._worker("eager"), network, height, width) as expected:
                for names in _HEATS if width * height > _LARGE else [list(CANDIDATES)]:
                    heat = self._heat(names, (network, height, width), expected, rounds, passes)
                    if BASELINE in found and "refusal" not in heat[BASELINE]:
                        heat[BASELINE]["seconds"] += found[BASELINE].get("seconds", [])
                    found |= heat
            self._last = question, found
        return self._last[1]

    def _heat(
        self, names: Collection[str], subject: tuple[str, int, int], expected: Path, rounds: int, passes: int
    ) -> Found:
        self.close(keep=names)
        found = {name: self._enter(name, subject, expected) for name in names}
        for _ in range(rounds):
            for name, entry in found.items():
                if "refusal" not in entry:
                    self._turn(name, entry, passes)
        for entry in found.values():
            entry["baseline"] = min(found[BASELINE].get("seconds", []), default=None)
        return found

    def _worker(self, name: str) -> Worker:
        if name not in self._workers:
            self._workers[name] = Worker(name)
        return self._workers[name]

    def _enter(self, name: str, subject: tuple[str, int, int], expected: Path) -> dict[str, Any]:
        """Parity before anything is timed."""
        worker = self._worker(name)
        try:
            refusal = worker.ask("why_not")
            if refusal is None:
                worker.ask("prepare", *subject)
                largest, mean, refusal = worker.ask("parity", expected)
        except RuntimeError as error:
            refusal = str(error)
        return {"refusal": refusal} if refusal else {"largest": largest, "mean": mean, "seconds": []}

    def _turn(self, name: str, entry: dict[str, Any], passes: int) -> None:
        try:
            entry["seconds"] += self._workers[name].ask("seconds", passes)
        except RuntimeError as error:
            entry["refusal"] = str(error)

    def close(self, keep: Collection[str] = ()) -> None:
        """End the processes."""
        for name in [name for name in self._workers if name not in keep]:
            self._workers.pop(name).close()
