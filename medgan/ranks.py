"""The processes that share one piece of work: who this one is, sums over all of them, and what they agree on.

One process is the common case and costs nothing. Several are started by torch's elastic agent (`medgan.launch`, torchrun), which tells
each its rank in the environment; they talk through `torch.distributed`: gloo for what lies in host memory, NCCL for what lies on GPUs.
"""

from __future__ import annotations

import ctypes
import datetime
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from medgan.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    import torch

P = ParamSpec("P")
R = TypeVar("R")

LOST = "E_RANK"
"""Code of the error of a process whose partner is gone; the partner's own error is the one to read."""

# One rank may measure or write for long while the others wait. A dead partner is noticed at once: its connection closes, or its agent stops us.
PATIENCE = datetime.timedelta(hours=6)


def _lost_partner_is_a_problem(method: Callable[Concatenate[Ranks, P], R]) -> Callable[Concatenate[Ranks, P], R]:
    @wraps(method)
    def guarded(self: Ranks, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.count == 1:
            return method(self, *args, **kwargs)
        import torch

        try:
            return method(self, *args, **kwargs)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise DeviceError(
                f"rank {self.rank} lost another rank ({type(error).__name__})",
                fix="see that rank's error; the same command resumes",
                code=LOST,
            ) from error

    return guarded


@dataclass(frozen=True)
class Ranks:
    """This process among `count`; with one, every method returns what it was given.

    Attributes:
        rank: This process, from 0. Rank 0 writes and speaks.
        count: All processes, over all machines.
    """

    rank: int = 0
    count: int = 1

    @property
    def speaks(self) -> bool:
        """Whether this process writes files and progress."""
        return self.rank == 0

    @_lost_partner_is_a_problem
    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks, in place; every rank gets the same bits."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.all_reduce(tensor)
        return tensor

    @_lost_partner_is_a_problem
    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank. Waits for the other processes, not for a GPU."""
        if self.count == 1:
            return flag
        import torch

        value = torch.tensor(int(flag))
        torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX)
        return bool(value)

    @_lost_partner_is_a_problem
    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Every rank's tensor (N_rank, ...) in host memory, in the order of ranks, on rank 0; an empty list elsewhere."""
        if self.count == 1:
            return [tensor]
        import torch
        import torch.distributed as dist

        sizes = [torch.zeros([], dtype=torch.int64) for _ in range(self.count)]
        dist.all_gather(sizes, torch.tensor(len(tensor)))
        longest = int(max(sizes))
        padded = tensor.new_zeros(longest, *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        parts = [torch.zeros_like(padded) for _ in range(self.count)] if self.rank == 0 else None
        dist.gather(padded, parts)
        return [part[: int(size)] for part, size in zip(parts or [], sizes, strict=False)]

    @_lost_partner_is_a_problem
    def check_alike(self, tensor: torch.Tensor, what: str) -> None:
        """Prove that a small tensor has the same bits on every rank.

        Raises:
            DeviceError: It has not: memory, a link or a library is broken.
        """
        if self.count == 1:
            return
        import torch

        host = tensor.detach().double().cpu().flatten()
        low, high = host.clone(), host.clone()
        torch.distributed.all_reduce(low, op=torch.distributed.ReduceOp.MIN)
        torch.distributed.all_reduce(high, op=torch.distributed.ReduceOp.MAX)
        if not torch.equal(low.nan_to_num(), high.nan_to_num()):
            raise DeviceError(
                f"{what} is no longer the same on all {self.count} ranks", fix="--resume auto on other machines; check GPU memory"
            )

    def wait(self) -> None:
        """Return when all ranks are here; in host memory, for torch's own barrier chooses between host and GPU by rules of its own."""
        self.any(False)

    def share(self, total: int, what: str) -> int:
        """This rank's part of a number that all ranks share alike.

        Raises:
            ConfigError: It cannot be divided.
        """
        if total % self.count:
            divisor = next(d for d in range(min(self.count, total), 0, -1) if total % d == 0)
            raise ConfigError(f"--gpus {self.count}: {what} {total} is not divisible by {self.count}", fix=f"--gpus {divisor}")
        return total // self.count


def started() -> int:
    """How many processes this one was started with, itself included, as the environment of torchrun says; 1 without."""
    return int(os.environ["WORLD_SIZE"]) if "RANK" in os.environ and os.environ.get("WORLD_SIZE", "").isdigit() else 1


@contextmanager
def joined() -> Iterator[Ranks]:
    """This process's place among those that were started with it; one process alone where there are no others.

    Raises:
        DeviceError: Fewer GPUs on this machine than processes.
    """
    if started() == 1:
        yield Ranks()
        return
    import torch
    import torch.distributed as dist

    _leave_with_parent()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    backend = "gloo"
    # Processes of a machine without GPUs, or told to stay off them, share its cores.
    if torch.cuda.is_available() and not os.environ.get("MEDGAN_DEVICE", "").startswith("cpu"):
        if local >= torch.cuda.device_count():
            raise DeviceError(
                f"rank {local} of this machine has no GPU: {torch.cuda.device_count()} found", fix=f"--gpus {torch.cuda.device_count()}"
            )
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)
    yield Ranks(dist.get_rank(), dist.get_world_size())
    # Not after an error: leaving in order would wait for partners that wait for us.
    dist.destroy_process_group()


def _leave_with_parent() -> None:
    """Ask Linux for a SIGTERM when the agent dies, which a SIGKILL gives it no time to send."""
    try:
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    except (OSError, AttributeError):
        return
