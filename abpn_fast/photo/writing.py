"""Writing the files of one result, all or none."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from abpn_fast.photo.files import Writer


def check_targets(paths: Iterable[Path], overwrite: bool) -> None:
    """See that each file may be written.

    Raises:
        FileExistsError: it exists and ``overwrite`` is False.
        FileNotFoundError: its folder does not exist.
        IsADirectoryError: it is a folder.
        ValueError: two of the paths are the same.
    """
    seen = set()
    for path in paths:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; name a file")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"no such folder: {path.parent}; create it first")
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists already; choose another name, or ask to overwrite it")
        if path.absolute() in seen:
            raise ValueError(f"{path} would be written twice; give each file its own name")
        seen.add(path.absolute())


def write_files(writers: Mapping[Path, Writer], overwrite: bool) -> None:
    """Write every file beside its place, then put all of them there; after a failure none has changed.

    Raises:
        OSError: from :func:`check_targets`, or a file cannot be written.
    """
    partial = {path: path.with_name(f".{secrets.token_hex(8)}.partial") for path in writers}
    try:
        for path, write in writers.items():
            with partial[path].open("xb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
        check_targets(writers, overwrite)
        for path in writers:
            os.replace(partial[path], path)
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
