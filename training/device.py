"""Where a run computes and in which precision: bfloat16 where the device is quicker with it, else float32."""

import time
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy, Strategy

from sam2_core.build import resolve_device
from sam2_core.errors import InputError
from training.settings import StrategyName
from training.sharding import ShardedStrategy, started_outside


def make_fabric(
    device: str, precision: str = "auto", devices: int = 1, nodes: int = 1, strategy: StrategyName = "auto"
) -> Fabric:
    """The processes of a run, one a device.

    `Fabric.launch` spawns them with the function it is given, unless SLURM or torchrun started them.

    Parameters
    ----------
    device : str
        auto, cpu, cuda or mps.
    precision : str
        See `resolve_precision`.
    devices, nodes : int
        Devices of each machine, and machines.
    strategy : str
        How several processes share the work: ddp, each with the whole model; fsdp, each with a shard of it; auto is
        ddp. One process has nothing to share.

    Raises
    ------
    InputError
        There is no such device, or there are fewer of them.
    """
    chosen = resolve_device(device)
    kind = chosen.type
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, devices)
    if not 1 <= devices <= there:
        raise InputError(f"{devices} devices are wanted and this machine has {there} of the kind {kind}: give fewer")
    processes = devices * nodes
    return Fabric(
        accelerator=device,
        devices=devices,
        num_nodes=nodes,
        strategy="auto" if processes == 1 else _strategy(strategy, processes),
        precision=resolve_precision(precision, chosen),  # type: ignore
    )


def _strategy(name: StrategyName, processes: int) -> Strategy:
    if name == "fsdp":
        return ShardedStrategy(processes)
    method: Literal["popen", "spawn"] = "popen" if started_outside() else "spawn"
    # a step on single images does not touch the memory's parameters
    return DDPStrategy(find_unused_parameters=True, start_method=method)


def resolve_precision(wanted: str, device: torch.device) -> str:
    """`wanted` as Lightning Fabric names it; ``auto`` becomes what suits the device.

    CPUs without instructions for bfloat16 multiply matrices a hundred times more slowly in it (measured on AVX2: 1.3
    instead of 166 GFLOP/s), and no flag says so on all of them: there, it is timed.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if device.type == "cpu":
        quicker = _seconds(torch.bfloat16) < _seconds(torch.float32)
        return "bf16-mixed" if quicker else "32-true"
    return "32-true"


def _seconds(dtype: torch.dtype, side: int = 256) -> float:
    """The shortest of three products of two square matrices on the CPU."""
    matrix = torch.ones(side, side, dtype=dtype)
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - begin)
    return min(times)
