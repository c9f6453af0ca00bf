import subprocess
import sys
import time

import pytest
import torch

from medgan.machine import carried, cores, free_memory


def tree(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_cores_follow_the_quota_of_the_container(tmp_path):
    everything = cores(tmp_path / "no quota")
    assert cores(tree(tmp_path / "v2", sys__fs__cgroup__cpu_DOT_max="100000 100000\n")) == 1
    assert cores(tree(tmp_path / "half", sys__fs__cgroup__cpu_DOT_max="50000 100000\n")) == 1
    assert cores(tree(tmp_path / "max", sys__fs__cgroup__cpu_DOT_max="max 100000\n")) == everything
    v1 = {"sys__fs__cgroup__cpu__cpu_DOT_cfs_quota_us": "100000\n", "sys__fs__cgroup__cpu__cpu_DOT_cfs_period_us": "100000\n"}
    assert cores(tree(tmp_path / "v1", **v1)) == 1
    v1["sys__fs__cgroup__cpu__cpu_DOT_cfs_quota_us"] = "-1\n"
    assert cores(tree(tmp_path / "v1 free", **v1)) == everything


def test_a_process_is_as_old_as_its_start():
    code = "import time; time.sleep(0.5); from medgan.machine import seconds_alive; print(seconds_alive())"
    began = time.monotonic()
    alive = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 0.5 <= alive <= time.monotonic() - began + 0.02  # the kernel counts in hundredths


def test_memory_follows_the_limit_of_the_container(tmp_path):
    info = {"proc__meminfo": "MemTotal:       32000 kB\nMemFree: 1 kB\nMemAvailable:   16000 kB\n"}
    assert free_memory(tree(tmp_path / "a", **info)) == 16000 * 1024
    limited = info | {"sys__fs__cgroup__memory_DOT_max": "5000000\n", "sys__fs__cgroup__memory_DOT_current": "2000000\n"}
    assert free_memory(tree(tmp_path / "b", **limited)) == 3_000_000
    free = info | {"sys__fs__cgroup__memory_DOT_max": "max\n", "sys__fs__cgroup__memory_DOT_current": "2000000\n"}
    assert free_memory(tree(tmp_path / "c", **free)) == 16000 * 1024


def test_what_is_carried_keeps_its_values_and_takes_the_type_of_a_tensor():
    matrices = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)[:, :2]
    there = carried(matrices, to=torch.zeros(1))
    assert there.dtype == torch.float32
    assert torch.equal(there, matrices.float())
    assert carried(matrices, to=torch.device("cpu")).dtype == torch.float64


@pytest.mark.gpu
def test_a_gpu_is_not_waited_for_while_something_is_carried_to_it():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    matrices = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)[:, :2]
    like = torch.zeros(1, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = carried(matrices, to=like)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(there.cpu(), matrices.float())
