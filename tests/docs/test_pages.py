"""The README and the documentation site show only what works.

- `console` blocks are run: each line that starts with `$ ` is a shell command, and what follows it is its output.
- `pycon` blocks are run as doctests.
- `sh` blocks are composed: each stylesim command in them must fit the configuration.

The blocks of one page share a folder and run in their order. `...` in an output stands for any text. A page may list
files of the checkout that it needs in a comment: `<!-- needs: data/stylecross -->`.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from stylesim.core.conf import conf_dir
from stylesim.runtime.settings import check_config, quote_plain_text, register_settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_BLOCK = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


def blocks(page: Path, *languages: str) -> Iterator[tuple[str, str]]:
    """Yield the language and the dedented text of each code block of a page."""
    for indent, language, text in _BLOCK.findall(page.read_text()):
        if language in languages:
            yield language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)


def commands(page: Path) -> Iterator[str]:
    """Yield each stylesim command of the page's `sh` blocks, continued lines joined."""
    for _, text in blocks(page, "sh"):
        for line in text.replace("\\\n", " ").splitlines():
            if re.match(r"(python -m stylesim\.|stylesim )", line):
                yield line


def pages_with(*languages: str) -> list[Path]:
    return [page for page in PAGES if any(blocks(page, *languages))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with("console", "pycon"), ids=name_of)
def test_a_page_shows_the_output_of_its_code(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for needed in re.findall(r"<!-- needs: (\S+) -->", page.read_text()):
        (tmp_path / needed).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / needed).symlink_to(ROOT / needed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    namespace: dict[str, object] = {}
    for language, text in blocks(page, "console", "pycon"):
        if language == "console":
            run_console(text, page)
        else:
            run_doctest(text, page, namespace)


def run_console(text: str, page: Path) -> None:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        # A command goes on in lines that start with "> ", and behind a backslash.
        size = 1
        while size < len(lines) and (lines[size - 1].endswith("\\\n") or lines[size].startswith("> ")):
            size += 1
        command = "".join(line.removeprefix("> ") for line in lines[:size])
        expected = "".join(lines[size:]).strip("\n") + "\n"
        done = subprocess.run(
            ["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600
        )
        output = done.stdout.strip("\n") + "\n"
        if not doctest.OutputChecker().check_output(expected, output, OPTIONS):
            pytest.fail(f"{page}: {command}\nexpected:\n{expected}\ngot:\n{output}", pytrace=False)


def run_doctest(text: str, page: Path, namespace: dict[str, object]) -> None:
    test = doctest.DocTestParser().get_doctest(text, namespace, name_of(page), str(page), 0)
    complaints: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=complaints.append, clear_globs=False)
    namespace.update(test.globs)
    if complaints:
        pytest.fail("".join(complaints), pytrace=False)


@pytest.mark.parametrize(
    ("page", "command"), [(page, command) for page in PAGES for command in commands(page)], ids=lambda x: str(x)[-60:]
)
def test_a_command_of_a_page_composes(page: Path, command: str) -> None:
    words = shlex.split(command, comments=True)
    name, arguments = (words[1], words[2:]) if words[0] == "stylesim" else (words[2].partition(".")[2], words[3:])
    if any(argument in ("--help", "--version") for argument in [name, *arguments]) or name == "models":
        return
    # Of a sweep, the first job.
    overrides = [re.sub(r"=([^{\[]*?),.*", r"=\1", a) for a in arguments if not a.startswith(("-", "hydra."))]
    register_settings(name)
    overrides = quote_plain_text(name, overrides)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(name, overrides)
    check_config(cfg, name)


def test_the_makefile_has_the_targets_that_pages_name() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in set(
            re.findall(
                r"\bmake ([a-z]+(?:-[a-z]+)*)\b(?=[` \n])", "\n".join(t for _, t in blocks(page, "sh", "console"))
            )
        ):
            assert re.search(rf"^{target}:.*##", makefile, re.MULTILINE), f"{name_of(page)}: make {target}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
