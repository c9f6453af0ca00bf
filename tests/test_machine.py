from medgan.machine import cores, free_memory


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


def test_memory_follows_the_limit_of_the_container(tmp_path):
    info = {"proc__meminfo": "MemTotal:       32000 kB\nMemFree: 1 kB\nMemAvailable:   16000 kB\n"}
    assert free_memory(tree(tmp_path / "a", **info)) == 16000 * 1024
    limited = info | {"sys__fs__cgroup__memory_DOT_max": "5000000\n", "sys__fs__cgroup__memory_DOT_current": "2000000\n"}
    assert free_memory(tree(tmp_path / "b", **limited)) == 3_000_000
    free = info | {"sys__fs__cgroup__memory_DOT_max": "max\n", "sys__fs__cgroup__memory_DOT_current": "2000000\n"}
    assert free_memory(tree(tmp_path / "c", **free)) == 16000 * 1024
