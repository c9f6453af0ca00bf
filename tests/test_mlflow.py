"""Runs in MLflow: a folder by its layout and, where it is installed, by MLflow itself; a server by what it is asked over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from click.testing import CliRunner

from medgan import runs
from medgan.cli import main
from medgan.errors import ConfigError, OutputError
from medgan.mlflow import Tracker, store_of
from tests.toy import discs

TINY = ["--kimg", "0.016", "--batch", "4", "--channel-base", "256", "--channel-max", "8", "--latent", "8", "--map-layers", "2"]
TINY += ["--metrics", "", "--tick-kimg", "0.004", "--snapshot-ticks", "1"]


def medgan(root: Path, uri: object, *more: object):
    words = ["train", "--data", root / "data", "--out", root / "liver", *TINY, "--mlflow", uri, *more]
    return CliRunner().invoke(main, [str(word) for word in words])


def curve(run: Path, name: str) -> list[tuple[int, float]]:
    lines = [line.split(" ") for line in (run / "metrics" / name).read_text().splitlines()]
    return [(int(step), float(value)) for _, value, step in lines]


def test_a_run_in_a_folder_has_settings_and_curves_and_goes_on_in_the_same_one(tmp_path):
    discs(tmp_path / "data")
    done = medgan(tmp_path, tmp_path / "mlruns")
    assert done.exit_code == 0, done.output
    (run,) = (path.parent for path in (tmp_path / "mlruns").glob("*/*/meta.yaml"))
    about = yaml.safe_load((run / "meta.yaml").read_text())
    assert (about["run_name"], about["status"], about["experiment_id"], about["run_id"]) == ("liver", 3, run.parent.name, run.name)
    assert yaml.safe_load((run.parent / "meta.yaml").read_text())["name"] == "medgan"
    config = json.loads((tmp_path / "liver" / runs.CONFIG).read_text())
    assert {path.name: path.read_text() for path in (run / "params").iterdir()} == {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in config.items()
    }
    # Longer: the same run, each line once.
    assert medgan(tmp_path, tmp_path / "mlruns", "--kimg", "0.024").exit_code == 0
    assert len(list((tmp_path / "mlruns").glob("*/*/meta.yaml"))) == 1
    stats = runs.read_json_lines(tmp_path / "liver" / runs.STATS)
    assert curve(run, "Loss/D/loss") == [(row["nimg"], row["Loss/D/loss"]["mean"]) for row in stats]
    assert len(stats) == 6
    # Anew: another run.
    assert medgan(tmp_path, tmp_path / "mlruns", "--resume", "new").exit_code == 0
    assert len(list((tmp_path / "mlruns").glob("*/*/meta.yaml"))) == 2
    text = "".join(path.read_text() for path in (tmp_path / "mlruns").glob("*/*/*/*") if path.is_file())
    assert str(tmp_path) not in text


def test_mlflow_itself_opens_the_folder(tmp_path, monkeypatch):
    library = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install mlflow-skinny")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    run = tmp_path / "liver"
    write_rows(run, 3)
    tracker = Tracker(str(tmp_path / "mlruns"), run, params={"batch": 32}, tags={"medgan": "1"}, goes_on=False)
    tracker.follow()
    tracker.end(complete=True)
    client = library.MlflowClient((tmp_path / "mlruns").as_uri())
    (found,) = client.search_runs([client.get_experiment_by_name("medgan").experiment_id])
    assert (found.info.run_name, found.info.status, found.data.params) == ("liver", "FINISHED", {"batch": "32"})
    assert found.data.tags["medgan"] == "1"
    assert [(one.step, one.value) for one in client.get_metric_history(found.info.run_id, "Loss/G/loss")] == [
        (0, 0.5),
        (1000, 1.5),
        (2000, 2.5),
    ]


def write_rows(run: Path, count: int) -> None:
    rows = [{"tick": i, "kimg": float(i), "nimg": 1000 * i, "Loss/G/loss": {"num": 1, "mean": i + 0.5, "std": 0}} for i in range(count)]
    runs.write_json_lines(run / runs.STATS, rows)


class Asked(BaseHTTPRequestHandler):
    """The part of MLflow's REST API that is used, which writes down what it is asked."""

    def do_GET(self) -> None:
        self.answer({key: value[0] for key, value in parse_qs(urlsplit(self.path).query).items()})

    def do_POST(self) -> None:
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, values: dict) -> None:
        what, server = urlsplit(self.path).path.removeprefix("/api/2.0/mlflow/"), self.server
        server.asked.append((self.command, what, values, self.headers.get("Authorization")))
        code, found = 200, {"runs/create": {"run": {"info": {"run_id": "r1"}}}, "experiments/create": {"experiment_id": "7"}}.get(what, {})
        if server.broken or (what == "experiments/get-by-name" and not server.known):
            code, found = (503, {}) if server.broken else (404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})
        elif what.startswith("experiments"):
            found = {"experiment": {"experiment_id": "7"}} if what.endswith("by-name") else found
        server.known = server.known or what == "experiments/create"
        body = json.dumps(found).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Asked) as found:
        found.asked, found.known, found.broken = [], False, False
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def address(server: ThreadingHTTPServer, user: str = "") -> str:
    return f"http://{user}127.0.0.1:{server.server_port}"


def test_a_server_gets_each_line_once_also_after_it_was_away(server, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    monkeypatch.setattr("medgan.mlflow.SECONDS_BETWEEN_TRIES", 0.0)
    run = tmp_path / "liver"
    write_rows(run, 1)
    tracker = Tracker(address(server), run, params={f"p{i}": i for i in range(130)}, tags={"medgan": "1"}, goes_on=False)
    tracker.follow()
    server.broken = True
    write_rows(run, 2)
    tracker.follow()
    assert "the server answered 503; the training goes on" in caplog.text
    server.broken = False
    write_rows(run, 3)
    tracker.follow()
    tracker.end(complete=False)
    words = [(verb, what) for verb, what, _, _ in server.asked]
    assert words[:5] == [
        ("GET", "experiments/get-by-name"),
        ("POST", "experiments/create"),
        ("POST", "runs/create"),
        ("POST", "runs/log-batch"),
        ("POST", "runs/log-batch"),
    ]
    batches = [values for _, what, values, _ in server.asked if what == "runs/log-batch"]
    assert [len(one["params"]) for one in batches if "params" in one] == [100, 30]
    sent = [[(m["key"], m["step"], m["value"]) for m in one["metrics"]] for one in batches if "metrics" in one]
    first, second, third = (("Loss/G/loss", 1000 * i, i + 0.5) for i in range(3))
    assert sent == [[first], [second], [second, third]]
    assert server.asked[-1][2]["status"] == "KILLED"
    assert {name for *_, name in server.asked} == {"Bearer secret"}
    # The next start goes on in the run, with nothing to send but that it runs.
    again = Tracker(address(server), run, params={}, tags={}, goes_on=True)
    again.follow()
    assert server.asked[-1][1:3] == ("runs/update", {"run_id": "r1", "status": "RUNNING"})


def test_a_server_that_does_not_answer_is_met_before_the_first_step_and_its_password_is_not_shown(server, tmp_path):
    discs(tmp_path / "data")
    server.broken = True
    done = medgan(tmp_path, address(server, "anna:geheim@"))
    assert done.exit_code == 73
    assert done.stderr.splitlines()[-1].startswith("ERROR E_OUTPUT --mlflow: the server answered 503")
    assert "geheim" not in done.output
    assert not (tmp_path / "liver" / runs.STATS).exists()
    with pytest.raises(OutputError, match="cannot be reached"):
        Tracker("http://127.0.0.1:9", tmp_path, params={}, tags={}, goes_on=False)
    assert "geheim" not in "".join(path.read_text(errors="replace") for path in (tmp_path / "liver").rglob("*") if path.is_file())


def test_nothing_is_sent_unless_asked(server, tmp_path, monkeypatch):
    """The variable of MLflow itself counts for nothing."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address(server))
    discs(tmp_path / "data")
    assert medgan(tmp_path, "").exit_code == 0
    assert server.asked == []
    assert not (tmp_path / "liver" / runs.TRACKED).exists()


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "databricks://profile", "https://", "file://elsewhere/mlruns"])
def test_what_is_neither_a_server_nor_a_folder_is_refused(uri):
    with pytest.raises(ConfigError, match="neither"):
        store_of(uri)
