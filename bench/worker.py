"""A process with one candidate in it, so that neither thread pools nor memory of another are in its way.

After OpenVINO and ONNX Runtime had run in the same process, PyTorch was seen to run many times slower.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

THREADS = int(os.environ.get("ABPN_BENCH_THREADS", "2"))


class Worker:
    """The handle on the process; one request at a time, stopped in between.

    Args:
        candidate: a key of ``peers.CANDIDATES``.
    """

    def __init__(self, candidate: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, candidate), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, question: str, *arguments: Any) -> Any:
        """The result of the method of ``_Bench`` of that name, or of the exception's text as a RuntimeError."""
        self._pause(False)
        try:
            self._connection.send((question, arguments))
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise RuntimeError(f"the process of this candidate ended in {question}") from None
        self._pause(True)
        if isinstance(answer, Exception):
            raise RuntimeError(str(answer))
        return answer

    def close(self) -> None:
        """End the process."""
        self._pause(False)
        self._process.kill()
        self._process.join()

    def _pause(self, yes: bool) -> None:
        """Threads that wait by spinning would otherwise slow the others down."""
        if self._process.is_alive() and self._process.pid is not None:
            os.kill(self._process.pid, signal.SIGSTOP if yes else signal.SIGCONT)


class _Bench:
    """What the process can be asked."""

    def __init__(self, candidate: str) -> None:
        import torch

        from bench import peers

        torch.set_num_threads(THREADS)
        self.candidate, self.module = peers.CANDIDATES[candidate], peers.module(candidate)
        self.call: Callable[[], Any] | None = None
        self.imported = 0

    def why_not(self) -> str | None:
        reason: str | None = self.module.why_not()
        return reason

    def prepare(self, network: str, height: int, width: int) -> None:
        """Take the network, the photo and a first pass."""
        import torch

        from bench import images, networks, process_memory

        self.call = None
        model = networks.network(network)
        self.imported = process_memory.resident()
        self.image = images.photo(height, width, getattr(torch, self.candidate.image))
        # Decoding leaves as much as the photo behind, where the C library puts the candidate's memory or does not.
        process_memory.give_back()
        process_memory.forget_peak()
        # Importing it here would count as memory of the candidate.
        if "torch._dynamo" in sys.modules:
            torch._dynamo.reset()
        # Not in inference mode: a copy made there counts no changes, and nothing could be derived from it once for all.
        with torch.no_grad():
            self.call = self.module.prepare(model, self.image)
        with torch.inference_mode():
            self.call()

    def parity(self, expected: Path) -> tuple[float, float, str | None]:
        """Compare with the reference's result, stored by ``reference``."""
        import torch

        from bench import images, parity

        assert self.call is not None
        with torch.inference_mode():
            photo = images.photo(*self.image.shape[2:], torch.float32)
            return tuple(parity.check(self.call(), torch.load(expected), photo, self.candidate.accuracy))

    def reference(self, file: Path) -> None:
        """Store the result of the eager reference."""
        import torch

        assert self.call is not None
        with torch.inference_mode():
            torch.save(self.call(), file)

    def seconds(self, passes: int) -> list[float]:
        """Of each pass."""
        import torch

        assert self.call is not None
        found = []
        with torch.inference_mode():
            for _ in range(passes):
                begin = time.perf_counter()
                result = self.call()
                found.append(time.perf_counter() - begin)
                del result
        return found

    def memory(self) -> dict[str, Any]:
        """Bytes: of the process at its peak so far and in one more pass, and before there was the photo or more."""
        from bench import process_memory

        first = process_memory.peak()
        process_memory.forget_peak()
        (seconds,) = self.seconds(1)
        return {
            "seconds": seconds,
            "imported": self.imported,
            "input": self.image.nbytes,
            "first_peak": first,
            "peak": process_memory.peak(),
        }

    def allocator_peak(self) -> int:
        """Bytes that PyTorch's allocator held at most in one pass, results included."""
        import torch

        from bench.peak import peak_bytes

        assert self.call is not None
        with torch.inference_mode():
            return peak_bytes(self.call, torch.device("cpu"))


def _serve(connection: Connection, candidate: str) -> None:
    import warnings

    warnings.simplefilter("ignore")
    # Stopped as it is most of the time, it would not notice that its parent was killed (PR_SET_PDEATHSIG).
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    bench: _Bench | None = None
    while True:
        try:
            question, arguments = connection.recv()
        except EOFError:
            return
        try:
            bench = bench or _Bench(candidate)
            connection.send(getattr(bench, question)(*arguments))
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            text = str(error).strip().partition("\n")[0][:300]
            connection.send(RuntimeError(f"{type(error).__name__}: {text} ({Path(last.filename).name})"))


@contextlib.contextmanager
def expected_result(eager: Worker, network: str, height: int, width: int) -> Iterator[Path]:
    """A file with what the eager reference computes."""
    with tempfile.TemporaryDirectory() as folder:
        eager.ask("prepare", network, height, width)
        eager.ask("reference", Path(folder) / "expected.pt")
        yield Path(folder) / "expected.pt"
