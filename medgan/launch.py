"""Start a piece of work on several processes of this machine, by torch's elastic agent, as torchrun does.

What torchrun does not do is done here: SIGUSR1 and SIGTERM reach the ranks, however young they are, and are waited for, the exit code
and the one ERROR line of the rank that failed first are ours, and what rank 0 says comes out of this process's own streams.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medgan import errors
from medgan.errors import DeviceError, MedganError, Preempted
from medgan.ranks import LOST
from medgan.signals import REQUEST, on_stop

AGENT = "MEDGAN_AGENT"
"""Set for processes started here: their errors go to the agent, which says one of them."""


def launch(module: str, arguments: Sequence[str], *, processes: int) -> None:
    """Run `python -m MODULE ARGUMENTS` as `processes` ranks and return when all have ended well.

    Args:
        module: Its process joins the others by `medgan.ranks.joined` and reports its error by `leave_error`.
        arguments: The same for each rank.
        processes: How many.

    Raises:
        MedganError: What the rank that failed first reported, with its exit code; Preempted when a stop was asked for and the state saved.
        DeviceError: A rank ended without a word: killed, or crashed.
    """
    import torch.distributed.elastic.rendezvous.registry as registry
    from torch.distributed.elastic.agent.server.api import WorkerSpec
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.rendezvous.api import RendezvousParameters

    if not os.environ.get("MEDGAN_DEBUG"):
        # The agent's own words about failures would stand after our last line.
        logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="medgan-ranks-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        request = folder / "stop"
        stack.enter_context(_environment(processes, request))
        where = RendezvousParameters("c10d", "127.0.0.1:0", uuid.uuid4().hex, 1, 1, local_addr="127.0.0.1", is_host=True)
        spec = WorkerSpec(
            role="",
            local_world_size=processes,
            entrypoint=sys.executable,
            args=("-m", module, *arguments),
            rdzv_handler=registry.get_rendezvous_handler(where),
            max_restarts=0,
            monitor_interval=0.2,
            local_addr="127.0.0.1",
        )
        # A prefix that is empty, or every line would carry the agent's name for the rank.
        logs = DefaultLogsSpecs(str(folder), redirects=Std.ERR, tee={0: Std.ERR, **dict.fromkeys(range(1, processes), Std.NONE)})
        agent = LocalElasticAgent(spec, logs, start_method="spawn", log_line_prefix_template="${role_name}")

        with on_stop(request.touch):
            result = agent.run()
        spec.rdzv_handler.shutdown()
    if result.is_failed():
        raise _first(result.failures)


@contextlib.contextmanager
def _environment(processes: int, request: Path) -> Any:
    """What the ranks inherit: where a stop is asked for, their share of the cores, quiet libraries, the loopback device."""
    ours = {
        AGENT: "1",
        REQUEST: str(request),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max((os.cpu_count() or 1) // processes, 1)),
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
        # The host name of a container without network has no address.
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
        # The agent would turn these into its own exception; SIGTERM is ours to pass on.
        "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGHUP",
    }
    former = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _first(failures: dict[int, Any]) -> MedganError:
    """The problem behind several failed ranks: a reported one before a silent one before those that only lost a partner."""

    def order(item: tuple[int, Any]) -> tuple[int, int, int]:
        rank, failure = item
        code = failure.error_file_data.get("code")
        return (2 if code == LOST else 0 if code else 1, failure.timestamp, rank)

    rank, failure = min(failures.items(), key=order)
    report = failure.error_file_data
    if "kimg" in report:
        return Preempted(report["problem"], fix=report["fix"], kimg=report["kimg"])
    if report.get("code"):
        kinds = {kind.exit_code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MedganError)}
        kind = kinds.get(report["exit_code"], MedganError)
        return kind(report["problem"], fix=report["fix"], code=report["code"])
    ended = f"was killed by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with exit code {failure.exitcode}"
    return DeviceError(
        f"rank {rank} {ended}; the others were stopped",
        fix="the same command resumes from the last saved state; SIGKILL often means too little host memory",
        code=LOST,
    )


def leave_error(problem: MedganError) -> bool:
    """Hand a problem to the agent that started this process; False where there is none and the process must say it itself."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not os.environ.get(AGENT) or not path:
        return False
    report: dict[str, Any] = {"message": problem.line, "timestamp": str(int(time.time()))}
    report |= {"code": problem.code, "exit_code": problem.exit_code, "problem": problem.message, "fix": problem.fix}
    if isinstance(problem, Preempted):
        report["kimg"] = problem.kimg
    Path(path).write_text(json.dumps(report), encoding="utf-8")
    return True
