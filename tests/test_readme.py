"""What the README and the pages in docs/ show runs as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from abpn_fast.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


EXAMPLES = [(page, code) for page in PAGES for code in blocks(page, "python")]
COMMANDS = [
    (page, line.partition("#")[0])
    for page in PAGES
    for text in [*blocks(page, ""), *re.findall(r"`(abpn-fast [^`]*)`", page.read_text())]
    for line in text.splitlines()
    if re.search(r"(^|-- )abpn-fast ", line)
]


@pytest.mark.parametrize(("page", "code"), EXAMPLES)
def test_examples_run(page: Path, code: str) -> None:
    exec(compile(code, str(page), "exec"), {})


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)[)#]", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: str(value)[-60:])
def test_commands_have_these_options(page: Path, line: str) -> None:
    words = shlex.split(re.sub(r".*(^|-- )abpn-fast ", "", line))
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    command = group.commands[words[0]]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known
