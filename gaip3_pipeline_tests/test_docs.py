"""What the documents name exists: files and headings, commands and options, settings, figures."""

import dataclasses
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gaip3_pipeline.attributes import ATTRIBUTES
from gaip3_pipeline.cli import main
from gaip3_pipeline.layout import REPOSITORY
from gaip3_pipeline.settings import SECTIONS, InputModel, of_preset, resolve

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "data/README.md", "gaip3_pipeline/**/README.md")
    for path in REPOSITORY.glob(pattern)
)
SHELL_WORDS = re.compile(r"""["']?([^\s"'`]+)["']?""")


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


pages = pytest.mark.parametrize("page", PAGES, ids=map(named, PAGES))


def code_of(page: Path) -> Iterator[str]:
    """The lines of code of a page: blocks and spans."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL):
        yield from block.splitlines()
    without_blocks = re.sub(r"```\w*\n.*?```", "", text, flags=re.DOTALL)
    yield from (line for line in without_blocks.splitlines() if line.startswith("    "))
    yield from (
        re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", without_blocks, re.DOTALL)
    )


def prose_of(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", h).replace("`", "").strip() for h in headings]
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in plain}


@pages
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    targets = re.findall(r"!?\[[^\]]*\]\(([^)\s]+)\)", prose_of(page))
    for target in targets:
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        assert found.exists(), f"{named(page)} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors_of(found), f"{named(page)} links to {target}: no such heading"


def test_every_picture_is_shown() -> None:
    shown = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for picture in (REPOSITORY / "docs" / "pictures").iterdir():
        assert f"pictures/{picture.name})" in shown, f"no page shows {picture.name}"


@pages
def test_commands_and_options_exist(page: Path) -> None:
    for line in code_of(page):
        for call in re.findall(r"(?:^|[\s=/(])gaip3 ([a-z][\w-]*[^|;&#]*)", line):
            words = SHELL_WORDS.findall(call)
            command = main.commands.get(words[0])
            assert command, f"{named(page)}: there is no command gaip3 {words[0]}"
            known = {option for parameter in command.params for option in parameter.opts}
            known |= {o for p in command.params for o in p.secondary_opts} | {"--help"}
            for option in (w.partition("=")[0] for w in words if w.startswith("--")):
                assert option in known, f"{named(page)}: gaip3 {words[0]} has no option {option}"


@pages
def test_targets_of_make_and_benches_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for line in code_of(page):
        for target in re.findall(r"(?:^|\s)make ([a-z][\w-]*)", line):
            assert target in targets, f"{named(page)}: there is no target make {target}"
        for path, options in re.findall(r"(bench/\w+\.py)([^|;&#]*)", line):
            bench = REPOSITORY / path
            assert bench.exists(), f"{named(page)} names {path}, which does not exist"
            for option in re.findall(r"(?<=\s)--[a-z][\w-]*", options):
                known = f'"{option}"' in bench.read_text(encoding="utf-8")
                assert known, f"{named(page)}: {path} has no option {option}"


@pages
def test_settings_exist(page: Path) -> None:
    known = {name: {f.name for f in dataclasses.fields(kind)} for name, kind in SECTIONS.items()}
    of_input_model = {f.name for f in dataclasses.fields(InputModel)}
    known |= {f"input_model_{a}": of_input_model for a in ATTRIBUTES}
    section = ""
    for line in code_of(page):
        header = re.match(r"\s*\[(?:presets\.\w+\.)?([a-z]\w*)\](?: (\w+))?", line)
        key = header[2] if header else (re.match(r"\s*(\w+) = ", line) or [None, None])[1]
        if header:
            section = header[1]
            assert section in known, f"{named(page)}: there is no section [{section}] of settings"
        elif not key:
            section = ""
        if section and key:
            assert key in known[section], f"{named(page)}: [{section}] has no setting {key}"


def test_the_example_in_the_settings_file_is_valid() -> None:
    lines = (REPOSITORY / "gaip3.toml").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("# ["))
    example = [line.removeprefix("# ") for line in lines[start:] if line.startswith("#")]
    end = next(i for i, line in enumerate(example) if not re.match(r"\[|\w+ = ", line))
    settings = resolve("seed", [tomllib.loads("\n".join(example[:end]))])
    assert settings != of_preset("seed")
