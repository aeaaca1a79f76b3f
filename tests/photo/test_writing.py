from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from abpn_fast.photo.writing import check_targets, write_files


def says(text: bytes, error: BaseException | None = None) -> Callable[[BinaryIO], None]:
    def write(stream: BinaryIO) -> None:
        stream.write(text)
        if error is not None:
            raise error

    return write


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_files_are_written(tmp_path: Path) -> None:
    write_files({tmp_path / "a": says(b"1"), tmp_path / "b": says(b"2")}, overwrite=False)
    assert contents(tmp_path) == {"a": b"1", "b": b"2"}
    write_files({tmp_path / "a": says(b"3")}, overwrite=True)
    assert contents(tmp_path) == {"a": b"3", "b": b"2"}


@pytest.mark.parametrize("error", [OSError("disk full"), ValueError("no"), KeyboardInterrupt()])
def test_a_failure_changes_nothing(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(type(error)):
        write_files({tmp_path / "a": says(b"new"), tmp_path / "b": says(b"half", error)}, overwrite=True)
    assert contents(tmp_path) == {"a": b"old"}


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_: object) -> None:
        raise OSError("input/output error")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="input/output error"):
        write_files({tmp_path / "a": says(b"new")}, overwrite=True)
    assert contents(tmp_path) == {"a": b"old"}


@pytest.mark.parametrize("no_links", [None, OSError("not supported"), NotImplementedError()])
@pytest.mark.parametrize("renamed", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_interrupt_between_the_renames_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, renamed: bool, no_links: Exception | None
) -> None:
    real, calls = os.replace, []

    def replace(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) != count or renamed:
            real(source, target)
        if len(calls) == count:
            raise KeyboardInterrupt

    def link(*_: object, **__: object) -> None:
        assert no_links is not None
        raise no_links

    for name in ("a", "c"):
        (tmp_path / name).write_bytes(b"old")
    monkeypatch.setattr(os, "replace", replace)
    if no_links is not None:
        monkeypatch.setattr(os, "link", link)
    with pytest.raises(KeyboardInterrupt):
        write_files({tmp_path / name: says(b"new") for name in "abc"}, overwrite=True)
    assert contents(tmp_path) == {"a": b"old", "c": b"old"}


def test_permissions_of_a_replaced_file_stay(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o600)
    before = os.umask(0o027)
    try:
        write_files({tmp_path / "a": says(b"new"), tmp_path / "b": says(b"new")}, overwrite=True)
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [0o600, 0o640]


def test_a_link_is_replaced_and_what_it_names_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    write_files({tmp_path / "link": says(b"new")}, overwrite=True)
    assert contents(tmp_path) == {"a": b"old", "link": b"new"}
    assert not (tmp_path / "link").is_symlink()


def test_folders_are_made_before_the_first_write(tmp_path: Path) -> None:
    path = tmp_path / "x" / "y" / "a"
    check_targets([path], overwrite=False, make_folders=True)
    assert contents(tmp_path) == {}
    write_files({path: says(b"1")}, overwrite=False, make_folders=True)
    assert contents(path.parent) == {"a": b"1"}
    with pytest.raises(FileNotFoundError, match="no such folder"):
        check_targets([path / "b"], overwrite=False, make_folders=True)


def test_a_file_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    def write(stream: BinaryIO) -> None:
        (tmp_path / "a").write_bytes(b"other")

    with pytest.raises(FileExistsError, match="exists already"):
        write_files({tmp_path / "a": write}, overwrite=False)
    assert contents(tmp_path) == {"a": b"other"}


def test_targets(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    check_targets([tmp_path / "a", tmp_path / "b"], overwrite=True)
    with pytest.raises(FileExistsError, match="exists already"):
        check_targets([tmp_path / "a"], overwrite=False)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        check_targets([tmp_path / "no" / "a"], overwrite=True)
    with pytest.raises(IsADirectoryError, match="is a folder"):
        check_targets([tmp_path], overwrite=True)
    for again in (tmp_path / "b", Path(os.path.relpath(tmp_path)) / "b", tmp_path / "c" / ".." / "b"):
        with pytest.raises(ValueError, match="written twice"):
            check_targets([tmp_path / "b", again], overwrite=True, make_folders=True)
