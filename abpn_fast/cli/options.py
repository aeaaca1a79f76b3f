"""What several commands ask for in the same words."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[str, typer.Option(help="Bundled weights by name, or a folder with a saved model.")]
Sensitivity = Annotated[
    float, typer.Option(help="Above 0 finds more blemishes, and more that are none; below 0 fewer.")
]
SelfEnsemble = Annotated[
    bool, typer.Option("--self-ensemble", help="Judge the mirror images as well: slower, a little better.")
]
