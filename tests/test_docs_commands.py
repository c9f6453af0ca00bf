"""The commands in the documents are those of the program: every option and every choice of a value is known."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache

import click
import pytest

from tests.conftest import ROOT
from tests.test_docs import read


def blocks(page: str, *, tried: bool = True) -> list[str]:
    """The commands of a page of docs, a block each.

    With `tried` without those that no test can run: below a paragraph that begins with "*Not" (tried), or marked as bash, the text of a script.
    """
    found = re.findall(r"^(?:(\*Not [^\n]*)\n\n)?```(\w*)\n(.*?)^```$", read(f"docs/{page}"), re.M | re.S)
    return [block for reason, kind, block in found if (kind == "sh" and not reason if tried else kind in ("sh", "bash", ""))]


PAGES = ["../README.md", *sorted(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md"))]
ENDS = {"|", "||", "&&", ";", "&", ">", ">>", "<", "("}


def invocations(block: str) -> Iterator[list[str]]:
    """Every call of medgan's command lines in a block: the program's name and the words behind it."""
    for line in block.replace("\\\n", " ").splitlines():
        if not re.search(r"\bmedgan\b|\bplugin\b", line):
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
        lexer.commenters, lexer.whitespace_split = "#", True
        words, entry = list(lexer), True
        for at, word in enumerate(words):
            rest = words[at + 1 :]
            rest = rest[: next((number for number, each in enumerate(rest) if each in ENDS), len(rest))]
            if word == "--entrypoint":
                entry = False
            elif word == "medgan" and (at == 0 or words[at - 1] in ENDS or words[at - 1] == "-m"):
                yield ["medgan", *rest]
            elif word.startswith("plugin") and at and words[at - 1] == "-m":
                yield [word, *rest]
            elif re.fullmatch(r"medgan:[\w.-]+|\S+\.sif", word) and entry and rest and "run" in words[:at]:
                yield ["plugin", *rest]
            elif re.fullmatch(r"medgan:[\w.-]+", word) and not entry and words[words.index("--entrypoint") + 1] == "medgan":
                yield ["medgan", *rest]


@cache
def group_of(program: str) -> click.Group:
    from medgan.cli import main
    from medgan.commands.job import JobConfig
    from plugin import docker, xnat
    from plugin.container import program as container

    groups = {
        "medgan": main,
        "plugin": container(JobConfig, lambda *_, **__: None),
        "plugin.xnat": xnat.group,
        "plugin.docker": docker.group,
    }
    return groups[program]


def misread(words: list[str]) -> list[str]:
    """The words that a command line would refuse: unknown commands and options, values that are none of their choices or no numbers."""
    command: click.Command = group_of(words[0])
    rest = words[1:]
    while isinstance(command, click.Group):
        if rest and rest[0] in ("--help", "-h", "--version"):
            return []
        name = rest.pop(0) if rest else ""
        below = command.get_command(click.Context(command), name)
        if below is None:
            return [name]
        command = below
    wrong = []
    if "--" in rest:
        # What an experiment hands on to its trainings.
        at = rest.index("--")
        rest, wrong = rest[:at], misread(["medgan", "train", *rest[at + 1 :]])
    known = {flag: each for each in command.params if isinstance(each, click.Option) for flag in (*each.opts, *each.secondary_opts)}
    for at, word in enumerate(rest):
        value = "".join(rest[at + 1 : at + 2])
        flag, equals, given = word.partition("=")
        if not flag.startswith("--") or flag == "--help":
            continue
        option = known.get(flag)
        if option is None:
            wrong.append(word)
        elif not option.is_flag and not isinstance(option.type, click.Path) and option.nargs == 1:
            try:
                option.type.convert(given if equals else value, option, None)
            except click.UsageError:
                wrong.append(f"{flag} {value}")
    return wrong


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_are_those_of_the_program(page: str):
    indented = re.findall(r"^ {4}(medgan .*|python -m .*)$", read(f"docs/{page}"), re.M)
    for block in [*blocks(page, tried=False), *indented]:
        for words in invocations(block):
            assert misread(words) == [], " ".join(words)


def test_what_a_page_could_say_wrongly_is_found():
    found = [misread(words) for words in invocations(
        "docker run --rm -v a:/input medgan:0.1.0 train --kimgs 3 && medgan train --preset none \\\n  --kimg many | tee log\n"
        "python -m plugin.xnat registers  # --kimgs\nexport A=1; medgan nothing\nmedgan diversity run --outs a -- --kimgs 3"
    )]  # fmt: skip
    assert found == [["--kimgs"], ["--preset none", "--kimg many"], ["registers"], ["nothing"], ["--kimgs", "--outs"]]


def test_a_block_that_is_not_tried_says_why():
    pages = ("how-to/dgx.md", "how-to/xnat.md")
    assert all(len(blocks(page)) > 5 for page in pages)
    reasons = [reason for page in pages for reason in re.findall(r"^(\*Not .*)\n\n```", read(f"docs/{page}"), re.M)]
    assert reasons
    assert all(len(reason) > 40 and reason.endswith(".*") for reason in reasons)
