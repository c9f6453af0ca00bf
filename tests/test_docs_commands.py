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

    With `tried` without those that no test can run: below a paragraph that begins with "*Not" (tried), or below a mark (see test_docs_run.py).
    """
    found = re.findall(r"^(?:(\*Not [^\n]*|<!-- not run: [^\n]*)\n+)?```(\w*)\n(.*?)^```$", read(f"docs/{page}"), re.M | re.S)
    return [block for reason, kind, block in found if kind in SHELL and not (tried and reason)]


SHELL = ("sh", "bash")
PAGES = ["../README.md", *sorted(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md"))]
HELP = ("--help", "-h", "--version")
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


def misread(words: list[str], *, whole: bool = True) -> list[str]:
    """The words that a command line would refuse: unknown commands and options, values that are none of their choices or no numbers.

    Where these are none and the command line is `whole`, what click says of it.
    """
    command: click.Command = group_of(words[0])
    rest = words[1:]
    while isinstance(command, click.Group):
        if rest and rest[0] in HELP:
            return []
        name = rest.pop(0) if rest else ""
        if not name and not whole:
            return []
        below = command.get_command(click.Context(command), name)
        if below is None:
            return [name]
        command = below
    wrong = []
    if "--" in rest:
        # What an experiment hands on to its trainings.
        at = rest.index("--")
        rest, wrong = rest[:at], misread(["medgan", "train", *rest[at + 1 :]], whole=False)
    known = {flag: each for each in command.params if isinstance(each, click.Option) for flag in (*each.opts, *each.secondary_opts)}
    for at, word in enumerate(rest):
        value = "".join(rest[at + 1 : at + 2])
        flag, equals, given = word.partition("=")
        if not flag.startswith("--") or flag == "--help":
            continue
        option = known.get(flag)
        if option is None:
            wrong.append(word)
        elif not option.is_flag and not isinstance(option.type, click.Path) and option.nargs == 1 and (whole or value or equals):
            try:
                option.type.convert(given if equals else value, option, None)
            except click.UsageError:
                wrong.append(f"{flag} {value}")
    return wrong or (refused(command, rest) if whole else [])


def refused(command: click.Command, words: list[str]) -> list[str]:
    """What click itself says of a command line: something is missing, or too much."""
    if not {*words} & {*HELP}:
        try:
            command.make_context(command.name, [*words])
        except click.UsageError as error:
            return [error.format_message()]
    return []


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_are_those_of_the_program(page: str):
    # Names that the page itself adds.
    own = re.findall(r'^([\w-]+) = "medgan_\w+:\w+"$', read(f"docs/{page}"), re.M)
    for block in blocks(page, tried=False):
        for words in invocations(block):
            assert [wrong for wrong in misread(words) if wrong.rpartition(" ")[2] not in own] == [], " ".join(words)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_stands_in_a_block_that_says_what_it_is(page: str):
    """Elsewhere nobody would run or read it: as indented text, or in a block of no language."""
    text = read(f"docs/{page}")
    command = r"(?:medgan|python3?|pip|docker|apt-get|make|torchrun|dask|sudo|srun) "
    found = [body for kind, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S) if not kind]
    outside = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.M | re.S)
    assert re.findall(rf"^ {{4,}}{command}.*$", outside, re.M) == []
    assert re.findall(rf"^{command}.*$", "".join(found), re.M) == []


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_of_commands_in_passing_is_known_too(page: str):
    outside = re.sub(r"^```\w*\n.*?^```$", "", read(f"docs/{page}"), flags=re.M | re.S)
    for span in re.findall(r"`((?:medgan|python -m plugin[.\w]*) [^`]+)`", outside):
        # A word in capitals stands for a value, or for any command.
        words = re.sub(r"(?<=[ =])[A-Z]+\b", "1", span)
        for call in invocations(words):
            assert call[1] == "1" or misread(call, whole=False) == [], span


def test_what_a_page_could_say_wrongly_is_found():
    found = [misread(words) for words in invocations(
        "docker run --rm -v a:/input medgan:0.1.0 train --kimgs 3 && medgan train --preset none \\\n  --kimg many | tee log\n"
        "python -m plugin.xnat registers  # --kimgs\nexport A=1; medgan nothing\nmedgan diversity run --outs a -- --kimgs 3\n"
        "medgan train --data a.zip --kimg 3\nmedgan report run other"
    )]  # fmt: skip
    assert found[:5] == [["--kimgs"], ["--preset none", "--kimg many"], ["registers"], ["nothing"], ["--kimgs", "--outs"]]
    assert [words[0].splitlines()[0] for words in found[5:]] == ["Missing option '--out'.", "Got unexpected extra argument (other)"]


def test_a_block_that_is_not_tried_says_why():
    pages = ("how-to/dgx.md", "how-to/xnat.md")
    assert all(len(blocks(page)) > 5 for page in pages)
    reasons = [reason for page in pages for reason in re.findall(r"^(\*Not .*)\n\n```", read(f"docs/{page}"), re.M)]
    assert reasons
    assert all(len(reason) > 40 and reason.endswith(".*") for reason in reasons)
