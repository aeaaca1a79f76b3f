"""Writing the files of one result, all or none."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from abpn_fast.photo.files import Writer


def check_targets(paths: Iterable[Path], overwrite: bool, make_folders: bool = False) -> None:
    """See that each file may be written.

    Raises:
        FileExistsError: it exists and ``overwrite`` is False.
        FileNotFoundError: its folder does not exist, unless ``make_folders`` and it can be made.
        IsADirectoryError: it is a folder.
        ValueError: two of the paths are the same.
    """
    seen = set()
    for path in paths:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; name a file")
        above = (folder for folder in path.parents if folder.exists()) if make_folders else iter((path.parent,))
        if not next(above, path.parent).is_dir():
            raise FileNotFoundError(f"no such folder: {path.parent}; create it first")
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists already; choose another name, or ask to overwrite it")
        # Not what a link at the end of it names: the link is replaced.
        place = path.parent.resolve() / path.name
        if place in seen:
            raise ValueError(f"{path} would be written twice; give each file its own name")
        seen.add(place)


def write_files(writers: Mapping[Path, Writer], overwrite: bool, make_folders: bool = False) -> None:
    """Write every file beside its place, then put all of them there; after a failure none has changed.

    A file that is replaced passes its permissions on.

    Raises:
        OSError: from :func:`check_targets`, or a file cannot be written.
    """
    new, old = ({path: _beside(path, ending) for path in writers} for ending in ("partial", "old"))
    try:
        for path, write in writers.items():
            if make_folders:
                path.parent.mkdir(parents=True, exist_ok=True)
            with new[path].open("xb") as stream:
                if path.exists():
                    new[path].chmod(stat.S_IMODE(path.stat().st_mode) & 0o777)
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
        check_targets(writers, overwrite)
        _put_in_place(new, old)
    finally:
        for path in (*new.values(), *old.values()):
            path.unlink(missing_ok=True)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{secrets.token_hex(8)}.{ending}")


def _put_in_place(new: Mapping[Path, Path], old: Mapping[Path, Path]) -> None:
    """Rename all of ``new``; after a failure or an interrupt all is as it was, by way of ``old``."""
    try:
        for path in new:
            if os.path.lexists(path):
                _keep(path, old[path])
        for path in new:
            os.replace(new[path], path)
    except BaseException:
        # An interrupt may come before the step it follows is noted, so the files themselves are asked.
        for path in new:
            if os.path.lexists(old[path]):
                os.replace(old[path], path)
            elif not new[path].exists():
                path.unlink(missing_ok=True)
        raise


def _keep(path: Path, old: Path) -> None:
    try:
        os.link(path, old, follow_symlinks=False)
    except (OSError, NotImplementedError):
        # A file system without hard links, or a platform that cannot make one of a symbolic link itself.
        os.rename(path, old)
