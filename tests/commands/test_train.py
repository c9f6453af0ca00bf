"""What `medgan train` says where a GPU's memory is short."""

from __future__ import annotations

import pytest
import torch

from medgan.commands.training_run import memory_of
from medgan.errors import DeviceError
from medgan.training.config import TrainConfig


@pytest.mark.parametrize(
    ("config", "fix"),
    [
        (TrainConfig(batch=32), "--batch-gpu 16 (same result)"),
        (TrainConfig(batch=32, gpus=4), "--batch-gpu 4 (same result)"),
        (TrainConfig(batch=24, batch_gpu=12), "--batch-gpu 8 (same result)"),
        (TrainConfig(batch=32, batch_gpu=4), "--recompute (same result)"),
        (TrainConfig(batch=32, batch_gpu=4, recompute=True), "a smaller --mbstd-group and --batch-gpu, smaller images or --channel-base"),
    ],
)
def test_too_little_memory_names_what_to_try_next(config, fix):
    with pytest.raises(DeviceError) as stop, memory_of(config):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert stop.value.line.endswith(f"fix: {fix}")
    assert stop.value.line.startswith("ERROR E_GPU_MEMORY")
    assert stop.value.exit_code == 71
