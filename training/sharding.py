"""Weights, gradients and optimizer states in shards over the processes of a run (FSDP2; Zhao et al. 2023)."""

from typing import TypeVar

import torch
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import ModelParallelStrategy
from lightning_fabric.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from sam2_core.model.sam2 import SAM2Base
from training.model.sam2_train import SAM2Train

M = TypeVar("M", bound=nn.Module)


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 through Fabric, on CPUs, too; its processes are spawned as those of DDP.

    Parameters
    ----------
    processes : int
        Of the run, over all machines.
    """

    def __init__(self, processes: int) -> None:
        super().__init__(shard_over_mesh, data_parallel_size=processes, tensor_parallel_size=1)

    def _configure_launcher(self) -> None:
        # Fabric's would run the whole script again in each process
        if not started_outside():
            self._launcher = _MultiProcessingLauncher(self, start_method="spawn")


def started_outside() -> bool:
    """Whether SLURM or torchrun starts the processes of the run, this one among them."""
    return TorchElasticEnvironment.detect() or SLURMEnvironment.detect()


def shard_over_mesh(module: SAM2Train, mesh: DeviceMesh) -> SAM2Train:
    """Shard a model for training; the way Fabric asks for it."""
    return shard(module, module.model, mesh["data_parallel"])


def shard(module: M, model: SAM2Base, mesh: DeviceMesh) -> M:
    """Keep a part of each parameter here; blocks and layers are whole only while they compute, the rest in a step.

    Parameters
    ----------
    module : nn.Module
        What is called: `model` itself, or what holds it.
    model : SAM2Base
    mesh : DeviceMesh
        Of one dimension.
    """
    trunk, attention = model.image_encoder.trunk, model.memory_attention
    for parts in (trunk.get_submodule("blocks"), attention.layers, model.sam_mask_decoder.transformer.layers):
        for part in parts.children():
            fully_shard(part, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def bytes_here(parameter: torch.Tensor) -> int:
    """Bytes of a parameter, or of its shard, on this device."""
    local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    return local.numel() * local.element_size()
