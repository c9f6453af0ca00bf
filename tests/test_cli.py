"""The front door: instant help, one line per problem, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from medgan.cli import COMMANDS


def medgan(*args: str, **kwargs) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "medgan", *args], capture_output=True, text=True, check=False, **kwargs)


def test_help_is_instant_and_imports_nothing_heavy():
    code = "import sys; from medgan.cli import main; sys.argv = ['medgan', '--help']\ntry: main()\nexcept SystemExit as stop: assert not stop.code\n"
    code += "heavy = {'torch', 'monai', 'matplotlib', 'numpy', 'scipy', 'PIL', 'pydicom'} & set(sys.modules); assert not heavy, heavy"
    times = []
    for _ in range(3):
        start = time.perf_counter()
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        times.append(time.perf_counter() - start)
        assert result.returncode == 0, result.stderr
    assert min(times) < 1
    for name in COMMANDS:
        assert f"  {name} " in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_without_torch(name):
    code = f"import sys; from medgan.cli import main; sys.argv = ['medgan', '{name}', '--help']\ntry: main()\nexcept SystemExit as stop: assert not stop.code\nassert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Usage:" in result.stdout


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (["trian"], 2, "ERROR E_CONFIG No such command 'trian'"),
        (["train"], 2, "ERROR E_CONFIG Missing option '--data'"),
        (["train", "--data", "nowhere.zip", "--out", "x"], 66, "ERROR E_INPUT --data names nothing that exists; fix: medgan prepare"),
        (["train", "--data", ".", "--out", "x", "--augment", "much"], 2, "ERROR E_CONFIG"),
        (["generate", "--bundle", "nowhere", "--out", "x"], 66, "ERROR E_INPUT"),
        (["demo", "--scans", "nowhere"], 66, "ERROR E_INPUT the demo's scans are not here; fix: make demo"),
    ],
)
def test_a_problem_is_the_last_line_and_an_exit_code(args, code, line, tmp_path):
    result = medgan(*args, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert result.stderr.splitlines()[-1].startswith(line)
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_info_is_json():
    result = medgan("info", "--json")
    facts = json.loads(result.stdout)
    assert facts["recipes"]
    assert facts["devices"][0] == "cpu"
    assert "demo" in facts["presets"]


def test_a_bug_is_one_line_without_values(tmp_path):
    """A failure nobody foresaw names the place in our code, not the data it met."""
    code = "from medgan import cli\nimport click\n@cli.main.command('boom')\ndef boom():\n    raise KeyError('Doe^John')\ncli.COMMANDS['boom'] = ('tests.test_cli:none', 'x')\n"
    code += "cli.Group.get_command = lambda self, ctx, name: boom\nimport sys; sys.argv = ['medgan', 'boom']\ncli.main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 70
    assert "Doe" not in result.stderr
    assert result.stderr.startswith("ERROR E_INTERNAL KeyError at ")
