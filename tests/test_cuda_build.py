from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from abpn_fast import cuda_build, native


class TestOnFirstUse:
    @pytest.fixture
    def _nvcc(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A compiler that does nothing, and a cache of one's own."""
        compiler = tmp_path / "cuda" / "bin" / "nvcc"
        compiler.parent.mkdir(parents=True)
        compiler.write_text("#!/bin/sh\necho release 1; exit ${FAKE_NVCC:-0}\n")
        compiler.chmod(0o755)
        monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("ABPN_FAST_DISABLE_JIT", raising=False)

    def test_it_can_be_forbidden(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ABPN_FAST_DISABLE_JIT", "1")
        with pytest.raises(RuntimeError, match="ABPN_FAST_DISABLE_JIT=1 forbids"):
            cuda_build.on_first_use()

    def test_without_nvcc(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_HOME", str(tmp_path))
        monkeypatch.delenv("ABPN_FAST_DISABLE_JIT", raising=False)
        with pytest.raises(RuntimeError, match="cannot be compiled here: there is no nvcc"):
            cuda_build.on_first_use()

    def test_on_another_system(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cuda_build, "os", SimpleNamespace(name="nt"))
        assert cuda_build.why_not_buildable() == "it is built on Linux only"

    def test_without_its_sources(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cuda_build, "nvcc", lambda: "nvcc")
        monkeypatch.setattr(cuda_build, "SOURCES", tmp_path)
        assert cuda_build.why_not_buildable() == f"its sources are not in {tmp_path}"

    def test_where_nvcc_is_looked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cuda_build.shutil, "which", lambda name, path=None: path)
        for name in ("CUDA_HOME", "CUDA_PATH"):
            monkeypatch.delenv(name, raising=False)
        assert cuda_build.nvcc() == "/usr/local/cuda/bin"
        for name in ("CUDA_PATH", "CUDA_HOME"):
            monkeypatch.setenv(name, f"/{name}")
            assert cuda_build.nvcc() == f"/{name}/bin"

    @pytest.mark.usefixtures("_nvcc")
    def test_one_compiles_and_the_others_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compilations, libraries = [], []

        def compile_library(target: Path, folder: Path, architectures: str) -> None:
            compilations.append(target)
            time.sleep(0.3)
            target.write_bytes(b"library")

        monkeypatch.setattr(cuda_build, "compile_library", compile_library)
        threads = [threading.Thread(target=lambda: libraries.append(cuda_build.on_first_use())) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(compilations) == 1
        assert len(set(libraries)) == 1 and libraries[0].read_bytes() == b"library"

    @pytest.mark.usefixtures("_nvcc")
    def test_half_a_library_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(target: Path, folder: Path, architectures: str) -> None:
            target.write_bytes(b"half")
            raise RuntimeError("the power failed")

        monkeypatch.setenv("ABPN_FAST_DISABLE_JIT", "0")
        monkeypatch.setattr(cuda_build, "compile_library", fail)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="the power failed"):
                cuda_build.on_first_use()

    @pytest.mark.usefixtures("_nvcc")
    def test_a_cache_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "cache").touch()
        with pytest.raises(RuntimeError, match=r"backend cuda is not compiled and .*cache.* cannot be written: "):
            cuda_build.on_first_use()

    def test_waiting_has_an_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cuda_build, "_LOCK_SECONDS", 0)
        lock, told = tmp_path / "lock", "waited 0 s for another process"
        with cuda_build._locked(lock), pytest.raises(RuntimeError, match=told), cuda_build._locked(lock):
            pass
        with cuda_build._locked(lock):
            pass

    @pytest.mark.parametrize(
        ("script", "told"),
        [
            ("exit 1", "nvcc failed without a word"),
            ("printf 'one\\ntwo\\nthree\\nfour\\n'; exit 1", "two three four"),
        ],
    )
    def test_what_the_compiler_said_last_is_told(self, script: str, told: str) -> None:
        with pytest.raises(RuntimeError, match=f"^backend cuda does not compile: {told}$"):
            cuda_build._run([["true"], ["sh", "-c", script]])

    @pytest.mark.usefixtures("_nvcc")
    def test_a_failure_is_remembered_and_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FAKE_NVCC", "1")
        monkeypatch.setattr(native, "_installed", lambda backend: None)
        attempts = []
        run = cuda_build._run
        monkeypatch.setattr(cuda_build, "_run", lambda commands: attempts.append(1) or run(commands))
        native.why_missing.cache_clear()
        try:
            for _ in range(2):
                assert native.why_missing("cuda") == "backend cuda does not compile: release 1"
        finally:
            native.why_missing.cache_clear()
        assert len(attempts) == 1

    @pytest.mark.usefixtures("_nvcc")
    def test_a_change_is_compiled_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cuda_build, "own_architectures", lambda: "8.0")
        monkeypatch.setattr(cuda_build, "SOURCES", tmp_path / "sources")
        for folder in ("cuda", "include"):
            (tmp_path / "sources" / folder).mkdir(parents=True)
            (tmp_path / "sources" / folder / "code.h").write_text("int one;")
        before = cuda_build._key()
        # Meant for builds for other machines; container images set it to what their torch was built for.
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.0")
        assert cuda_build._key() == before
        keys = [before]
        monkeypatch.setattr(cuda_build, "own_architectures", lambda: "9.0")
        keys.append(cuda_build._key())
        for folder in ("cuda", "include"):
            (tmp_path / "sources" / folder / "code.h").write_text("int two;")
            keys.append(cuda_build._key())
        monkeypatch.setattr(cuda_build, "NVCC_FLAGS", ("-O2",))
        keys.append(cuda_build._key())
        (tmp_path / "cuda" / "bin" / "nvcc").write_text("#!/bin/sh\necho release 2\n")
        keys.append(cuda_build._key())
        assert len(set(keys)) == len(keys) == 6

    @pytest.mark.usefixtures("_nvcc")
    def test_only_for_the_gpus_that_are_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cuda_build, "own_architectures", lambda: "9.0")
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "Hopper")
        commands: list[list[str]] = []

        def run(all_: list[list[str]]) -> None:
            commands.extend(all_)
            Path(all_[-1][-1]).write_bytes(b"library")

        monkeypatch.setattr(cuda_build, "_run", run)
        cuda_build.on_first_use()
        flags = {part for command in commands for part in command if part.startswith("-gencode")}
        assert flags == {"-gencode=arch=compute_90,code=sm_90"}
        assert not any("-Werror" in part for command in commands for part in command)
        *compiled, linked = commands
        ours = {f"-I{cuda_build.SOURCES / name}" for name in ("include", "cuda")}
        assert compiled and all(ours <= {*command} for command in compiled)
        assert {"-shared", "-ltorch_cpu"} <= {*linked} and any(part.startswith("-L") for part in linked)

    @pytest.mark.parametrize(
        ("wanted", "flags"),
        [
            ("8.0", ["arch=compute_80,code=sm_80"]),
            ("8.0;9.0a", ["arch=compute_80,code=sm_80", "arch=compute_90a,code=sm_90a"]),
            ("9.0 12.0f", ["arch=compute_90,code=sm_90", "arch=compute_120f,code=sm_120f"]),
            ("10.0+PTX", ["arch=compute_100,code=sm_100", "arch=compute_100,code=compute_100"]),
        ],
    )
    def test_architectures(self, wanted: str, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", wanted)
        assert cuda_build.architecture_flags() == [f"-gencode={flag}" for flag in flags]

    def test_architectures_of_this_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert cuda_build.own_architectures() == "8.0;9.0;10.0+PTX"
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: [(8, 9), (8, 0), (9, 0)][device])
        assert cuda_build.own_architectures() == "8.0;8.9;9.0"
        monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
        assert cuda_build.architecture_flags() == [f"-gencode=arch=compute_{n},code=sm_{n}" for n in (80, 89, 90)]

    def test_an_architecture_by_another_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "Hopper")
        with pytest.raises(ValueError, match=r"TORCH_CUDA_ARCH_LIST must hold numbers .*got 'Hopper'"):
            cuda_build.architecture_flags()


class TestSetup:
    def extensions(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """What ``setup.py`` would build, by its own words."""
        root = Path(cuda_build.__file__).parents[1]
        code = "import setuptools; setuptools.setup = lambda **o: print([e.name for e in o.get('ext_modules', [])]); "
        code += "import runpy; runpy.run_path('setup.py')"
        hidden = {name: value for name, value in os.environ.items() if name != "TORCH_CUDA_ARCH_LIST"}
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env=hidden | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def test_left_out_on_request(self) -> None:
        done = self.extensions(ABPN_FAST_BUILD_CPU="0", ABPN_FAST_BUILD_CUDA="0")
        assert done.stdout.strip() == "[]"
        assert "without its native library for CUDA: ABPN_FAST_BUILD_CUDA is 0" in done.stderr

    def test_without_nvcc(self, tmp_path: Path) -> None:
        done = self.extensions(ABPN_FAST_BUILD_CPU="0", CUDA_HOME=str(tmp_path))
        assert "without its native library for CUDA: there is no nvcc" in done.stderr and done.returncode == 0
        done = self.extensions(ABPN_FAST_BUILD_CPU="0", CUDA_HOME=str(tmp_path), ABPN_FAST_BUILD_CUDA="1")
        assert "library for CUDA cannot be built: there is no nvcc" in done.stderr and done.returncode != 0

    @pytest.mark.skipif(cuda_build.why_not_buildable() is not None, reason="there is no nvcc")
    def test_with_nvcc(self) -> None:
        options = {"ABPN_FAST_BUILD_CPU": "0"}
        for asked in ({"ABPN_FAST_BUILD_CUDA": "1"}, {"TORCH_CUDA_ARCH_LIST": "9.0"}):
            assert self.extensions(**options, **asked).stdout.strip() == "['abpn_fast._C_cuda']"
        if not torch.cuda.is_available():
            assert "there is no GPU (set TORCH_CUDA_ARCH_LIST" in self.extensions(**options).stderr

    def test_a_wish_of_another_kind(self) -> None:
        done = self.extensions(ABPN_FAST_BUILD_CUDA="maybe", ABPN_FAST_BUILD_CPU="0")
        assert "ABPN_FAST_BUILD_CUDA must be auto, 0 or 1, got 'maybe'" in done.stderr and done.returncode != 0
