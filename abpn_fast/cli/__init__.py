"""The ``abpn-fast`` command; torch is only imported by a command that computes."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, Any

try:
    import typer
    from typer.core import TyperGroup
except ModuleNotFoundError as error:
    print(f"error: {error.name} is not installed; pip install 'abpn_fast[photo]'", file=sys.stderr)
    raise SystemExit(2) from None

from abpn_fast.cli.ablate import ablate
from abpn_fast.cli.evaluate import evaluate
from abpn_fast.cli.export import export
from abpn_fast.cli.failures import complain
from abpn_fast.cli.fetch_vgg import fetch_vgg
from abpn_fast.cli.retouch import retouch
from abpn_fast.cli.train import train


class _Commands(TyperGroup):
    """Commands whose wrong use is told in one line."""

    def main(self, *args: Any, **extra: Any) -> Any:
        standalone = extra.get("standalone_mode", True)
        for name in ("stdout", "stderr"):
            # Closed, as a service may have them.
            if getattr(sys, name) is None:
                setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Names of files need not be text; a line about one must not be an error.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except typer.TyperException as error:
            complain(" ".join(error.format_message().split()))
            code = error.exit_code
        except typer.Abort:
            code = 130
        if standalone:
            sys.exit(code)
        return code


app = typer.Typer(cls=_Commands, add_completion=False, pretty_exceptions_enable=False)
for command in (retouch, train, evaluate, ablate, export, fetch_vgg):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        from abpn_fast import __version__

        typer.echo(f"abpn-fast {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Retouch photos of any size locally: skin blemishes and wrinkles go, everything else stays."""
