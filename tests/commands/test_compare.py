import json

import pytest
from click.testing import CliRunner

from medgan.cli import main
from tests.metrics.test_comparison import evaluation


def compare(tmp_path, a, b, *words):
    for name, content in (("SMITH^A.json", a), ("b.json", b)):
        if content is not None:
            (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return CliRunner().invoke(main, ["compare", str(tmp_path / "SMITH^A.json"), str(tmp_path / "b.json"), *words])


def test_two_evaluations_give_one_json_object(tmp_path):
    done = compare(tmp_path, evaluation(), evaluation(15.0))
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["fid"]["relative_improvement"] == 0.25


def test_fids_of_other_counts_are_exit_65_unless_asked_for(tmp_path):
    refused = compare(tmp_path, evaluation(), evaluation(n_fake=500))
    assert refused.exit_code == 65
    assert "1,000 and 500 synthetic images" in refused.stderr.splitlines()[-1]
    assert compare(tmp_path, evaluation(), evaluation(n_fake=500), "--unequal").exit_code == 0
    assert list(json.loads(compare(tmp_path, evaluation(), evaluation(n_fake=500), "--metrics", "kid").stdout)["metrics"]) == ["kid"]


@pytest.mark.parametrize(
    ("content", "code"),
    [(None, 66), ("{", 65), ("[]", 65), ('{"metrics": {"fid": 3}}', 65), ('{"metrics": {"fid": {"value": null}}}', 65), ("\xff", 65)],
)
def test_a_file_that_is_no_evaluation_is_named_by_its_place(tmp_path, content, code):
    done = compare(tmp_path, content, evaluation())
    assert done.exit_code == code
    assert done.stderr.splitlines()[-1].startswith("ERROR E_")
    assert " A " in done.stderr
    assert "SMITH" not in done.stderr


def test_an_evaluation_of_a_newer_medgan_is_not_misread(tmp_path):
    done = compare(tmp_path, evaluation(), evaluation() | {"format": 2})
    assert done.exit_code == 65
    assert done.stderr.splitlines()[-1] == "ERROR E_DATA B has format 2, this version reads up to 1; fix: upgrade medgan"
    assert compare(tmp_path, evaluation(), evaluation() | {"format": 1}).exit_code == 0
