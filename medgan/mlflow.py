"""A training's settings and curves in MLflow, for those who ask for it: over the REST API of a server, or in a folder that MLflow opens.

The library itself is not needed: it brings dozens of packages and reports its use to its makers. Written from MLflow's REST API 2.0, and for
folders from the layout that MLflow 3.17 leaves (meta.yaml, params/NAME, tags/NAME, metrics/NAME with `ms value step` lines); JSON is YAML too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from medgan import runs
from medgan.errors import ConfigError, OutputError
from medgan.tensorboard import scalars

log = logging.getLogger(__name__)

EXPERIMENT = "medgan"
SECONDS_TO_ANSWER = 10.0
SECONDS_BETWEEN_TRIES = 60.0
"""After a failure: a server that is away must not slow a training down."""

RUNNING, FINISHED, KILLED = "RUNNING", "FINISHED", "KILLED"
_STATUS = {RUNNING: 1, FINISHED: 3, KILLED: 5}

Metric = dict[str, Any]
"""`key`, `value`, `timestamp` in ms, `step`."""


class Store(Protocol):
    """Where MLflow keeps runs. What cannot be done raises OSError."""

    def create(self, experiment: str, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        """Begin a run; its id."""

    def log(self, run: str, metrics: list[Metric]) -> None:
        """Add to its curves."""

    def status(self, run: str, status: str) -> None:
        """Say how it stands."""


def _ms() -> int:
    return round(time.time() * 1000)


class Server:
    """An MLflow server.

    Args:
        address: http or https; name and password may stand in it, or in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or a token in
            MLFLOW_TRACKING_TOKEN.
    """

    def __init__(self, address: str) -> None:
        import requests

        self.address, self.session = address.rstrip("/"), requests.Session()
        name = os.environ.get("MLFLOW_TRACKING_USERNAME")
        if name:
            self.session.auth = (name, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
        elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
            self.session.headers["Authorization"] = f"Bearer {token}"

    def _ask(self, verb: str, what: str, **values: Any) -> Any:
        query, body = (values, None) if verb == "GET" else (None, values)
        answer = self.session.request(verb, f"{self.address}/api/2.0/mlflow/{what}", params=query, json=body, timeout=SECONDS_TO_ANSWER)
        answer.raise_for_status()
        return answer.json()

    def _experiment(self, name: str) -> str:
        import requests

        try:
            return self._ask("GET", "experiments/get-by-name", experiment_name=name)["experiment"]["experiment_id"]
        except requests.HTTPError as error:
            if error.response.status_code != 404:
                raise
        try:
            return self._ask("POST", "experiments/create", name=name)["experiment_id"]
        except requests.HTTPError:
            # Another run may have made it in between.
            return self._ask("GET", "experiments/get-by-name", experiment_name=name)["experiment"]["experiment_id"]

    def create(self, experiment: str, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        listed = [{"key": key, "value": value} for key, value in tags.items()]
        made = self._ask("POST", "runs/create", experiment_id=self._experiment(experiment), run_name=name, start_time=_ms(), tags=listed)
        run = made["run"]["info"]["run_id"]
        # No more than 100 in a request.
        rows = [{"key": key, "value": value} for key, value in params.items()]
        for start in range(0, len(rows), 100):
            self._ask("POST", "runs/log-batch", run_id=run, params=rows[start : start + 100])
        return run

    def log(self, run: str, metrics: list[Metric]) -> None:
        for start in range(0, len(metrics), 1000):
            self._ask("POST", "runs/log-batch", run_id=run, metrics=metrics[start : start + 1000])

    def status(self, run: str, status: str) -> None:
        ended = {} if status == RUNNING else {"end_time": _ms()}
        self._ask("POST", "runs/update", run_id=run, status=status, **ended)


class Folder:
    """A file store, as `mlflow server --backend-store-uri FOLDER` opens it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def create(self, experiment: str, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        # Of the name alone, so that runs that begin together find one experiment.
        number = str(int(hashlib.sha256(experiment.encode()).hexdigest()[:14], 16))
        parent, run, now = self.folder / number, secrets.token_hex(16), _ms()
        if not (parent / "meta.yaml").exists():
            about = {"artifact_location": parent.as_uri(), "creation_time": now, "last_update_time": now}
            runs.write_json(parent / "meta.yaml", about | {"experiment_id": number, "lifecycle_stage": "active", "name": experiment})
        for kind, values in (("params", params), ("tags", {**tags, "mlflow.runName": name})):
            for key, value in values.items():
                runs.write_text(parent / run / kind / key, value)
        for kind in ("metrics", "artifacts"):
            (parent / run / kind).mkdir()
        about = {
            "artifact_uri": (parent / run / "artifacts").as_uri(),
            "end_time": None,
            "entry_point_name": "",
            "experiment_id": number,
            "lifecycle_stage": "active",
            "run_id": run,
            "run_name": name,
            "source_name": "",
            "source_type": 4,
            "source_version": "",
            "start_time": now,
            "status": _STATUS[RUNNING],
            "tags": [],
            "user_id": "medgan",
        }
        runs.write_json(parent / run / "meta.yaml", about)
        return f"{number}/{run}"

    def log(self, run: str, metrics: list[Metric]) -> None:
        for one in metrics:
            path = self.folder / run / "metrics" / one["key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{one['timestamp']} {one['value']!r} {one['step']}\n")

    def status(self, run: str, status: str) -> None:
        path = self.folder / run / "meta.yaml"
        about = json.loads(path.read_text(encoding="utf-8"))
        runs.write_json(path, about | {"status": _STATUS[status], "end_time": None if status == RUNNING else _ms()})


def store_of(uri: str) -> Store:
    """The store behind `--mlflow`.

    Raises:
        ConfigError: It is neither a server nor a folder.
    """
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.netloc:
        return Server(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Folder(Path(unquote(parts.path)))
    if "://" not in uri:
        return Folder(Path(uri))
    # Not shown: a password may stand in it.
    raise ConfigError("--mlflow is neither http(s)://SERVER nor a folder", fix="--mlflow mlruns, or the address of `mlflow server`")


class Tracker:
    """A run folder's lines, sent as they come; a run that goes on goes on in the same run of MLflow, and no line is sent twice.

    Args:
        uri: Server or folder.
        run: Run folder; which MLflow run it is stands in its mlflow.json, without the address.
        params: Settings.
        tags: What else to say of it.
        goes_on: Whether the run folder has a state to go on from; else it is a new run of MLflow too.

    Raises:
        ConfigError: `uri` cannot be.
        OutputError: Nothing answers there, or it cannot be written.
    """

    def __init__(self, uri: str, run: Path, *, params: Mapping[str, Any], tags: Mapping[str, str], goes_on: bool) -> None:
        self.store, self.run = store_of(uri), run
        self.where = hashlib.sha256(uri.encode()).hexdigest()
        self.known: dict[str, Any] = {}
        self.next_try = 0.0
        named = {name: value if isinstance(value, str) else json.dumps(value) for name, value in params.items()}
        try:
            before = json.loads((run / runs.TRACKED).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {}
        try:
            if goes_on and before.get("store") == self.where:
                self.known = before
                self.store.status(before["id"], RUNNING)
            else:
                name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
                # A line once sent stays; those that another store has are sent to this one too.
                self._remember(self.store.create(name, run.absolute().name, named, tags), -1)
        except (OSError, ValueError, KeyError) as error:
            raise OutputError(f"--mlflow: {_reason(error)}", fix="start the server, another address, or leave --mlflow out") from None

    def _remember(self, run: str, nimg: int) -> None:
        self.known = {"store": self.where, "id": run, "nimg": nimg}
        runs.write_json(self.run / runs.TRACKED, self.known)

    def follow(self) -> None:
        """Send what is new in stats.jsonl and metrics.jsonl; a failure is said, and tried again later: a training never ends by it."""
        if time.monotonic() < self.next_try:
            return
        rows = [*runs.read_json_lines(self.run / runs.STATS), *runs.read_json_lines(self.run / runs.EVALUATIONS)]
        steps = [round(row["kimg"] * 1000) for row in rows]
        found = [
            {"key": name, "value": value, "timestamp": _ms(), "step": step}
            for step, row in zip(steps, rows, strict=True)
            if step > self.known["nimg"]
            for name, value in scalars(row).items()
        ]
        if found and self._try(lambda: self.store.log(self.known["id"], found)):
            self._remember(self.known["id"], max(steps))

    def end(self, *, complete: bool) -> None:
        """Send the rest, and say how the run ended."""
        self.next_try = 0.0
        self.follow()
        self._try(lambda: self.store.status(self.known["id"], FINISHED if complete else KILLED))

    def _try(self, act: Callable[[], None]) -> bool:
        try:
            act()
        except (OSError, ValueError) as error:
            self.next_try = time.monotonic() + SECONDS_BETWEEN_TRIES
            log.warning("--mlflow: %s; the training goes on", _reason(error))
            return False
        return True


def _reason(error: Exception) -> str:
    """A failure without the address, in which a password may stand."""
    answer = getattr(error, "response", None)
    if answer is not None:
        return f"the server answered {answer.status_code}"
    return f"it cannot be reached or written ({type(error).__name__})"
