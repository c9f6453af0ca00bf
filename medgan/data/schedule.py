"""Who cuts which scan when: in this process, in several, or on a cluster; the result is the same."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medgan import machine
from medgan.data.crew import Died, in_processes
from medgan.data.recipe import Recipe
from medgan.data.results import Piece
from medgan.data.slices import Job, Outcome
from medgan.data.spool import cut_into, place
from medgan.progress import Step, nothing

if TYPE_CHECKING:
    from medgan.data.masks import LabelMap
    from medgan.data.scans import Scan

# A worker imports MONAI for seconds, which three scans do not win back.
FEWEST_SCANS_FOR_WORKERS = 4
# A process with MONAI and torch; and copies of a volume as float32 while it is turned, windowed and measured.
WORKER_BYTES = 400 * 2**20
VOXEL_BYTES = 24

KILLED = "the process that read it was killed: too large for the memory, or a crash in a decoder"


def cut_all(
    chosen: Sequence[tuple[Scan, LabelMap | None]],
    recipe: Recipe,
    folder: Path,
    *,
    workers: int = 0,
    scheduler: str = "",
    step: Step = nothing,
) -> list[Piece]:
    """Cut scans, each with the label map that selects its slices; those that an earlier run cut are taken from the work folder.

    Args:
        chosen: Scans.
        recipe: What is done.
        folder: Work folder.
        workers: Processes on this machine; 0 is `usual_workers`.
        scheduler: Address of a Dask scheduler, whose workers cut instead.
        step: Progress, in scans.

    Returns:
        A piece per scan, in the order given.
    """
    jobs = [Job(scan=scan, mask=mask, recipe=recipe, spool=folder) for scan, mask in chosen]
    done: dict[int, tuple[str, Outcome]] = {}
    if jobs:
        step(0, len(jobs))
    for index, result in _results(jobs, folder, workers, scheduler):
        done[index] = ("", Outcome(fault=KILLED)) if isinstance(result, Died) else result
        step(len(done), len(jobs))
    return [Piece(scan=job.scan, outcome=done[i][1], spool=place(folder, done[i][0])) for i, job in enumerate(jobs)]


def _results(jobs: Sequence[Job], folder: Path, workers: int, scheduler: str) -> Iterator[tuple[int, tuple[str, Outcome] | Died]]:
    """What became of each scan, as it is known."""
    if scheduler:
        from medgan.data.cluster import on_cluster

        yield from on_cluster(scheduler, jobs, folder)
        return
    count = min(workers or usual_workers(jobs), max(len(jobs), 1))
    if count > 1:
        yield from in_processes(functools.partial(cut_into, folder), jobs, count)
        return
    for index, job in enumerate(jobs):
        yield index, cut_into(folder, job)


def usual_workers(jobs: Sequence[Job]) -> int:
    """One process per core, but no more than have room in the memory with the largest scan each."""
    if len(jobs) < FEWEST_SCANS_FOR_WORKERS:
        return 1
    largest = max(math.prod(job.scan.shape) for job in jobs)
    room = int(0.8 * machine.free_memory()) // (WORKER_BYTES + VOXEL_BYTES * largest)
    return max(min(machine.cores(), room), 1)
