"""DeepSpeed's ZeRO: each rank updates its part of the weights (stage 1), and keeps only its part of the gradients (2)
and of the weights (3).

This calls `deepspeed.initialize` directly. Accelerate 1.15 also takes strategy, clipping and accumulation from the
launcher's environment, loses BatchNorm's statistics, and loads checkpoints only on the same number of ranks.
"""

import importlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from distcls.engine.strategies.deepspeed_config import deepspeed_config
from distcls.engine.strategies.shards import Held, Run, whole_run
from distcls.engine.strategies.strategy import Strategy, refuse_idle
from distcls.errors import UserError


class ZeRO(Strategy):
    """DeepSpeed's engine around the classifier.

    Args:
        stage: 1, 2 or 3.
        micro_batch: images per rank and forward pass.
        overrides: changes to DeepSpeed's configuration.
    """

    replicated_optimizer = False

    def __init__(
        self,
        accelerator: Accelerator,
        classifier: nn.Module,
        build_optimizer: Callable[[], torch.optim.Optimizer],
        *,
        stage: int,
        micro_batch: int,
        accumulation_steps: int,
        clip_grad_norm: float | None,
        overrides: Mapping[str, Any],
    ) -> None:
        super().__init__(accelerator, classifier)
        self.stage = stage
        self.replicated = stage < 3
        self.config = deepspeed_config(
            stage=stage,
            micro_batch=micro_batch,
            accumulation_steps=accumulation_steps,
            ranks=accelerator.num_processes,
            clip_grad_norm=clip_grad_norm,
            bf16=accelerator.mixed_precision == "bf16",
            overrides=overrides,
        )
        deepspeed = _deepspeed(accelerator)
        self._gather = deepspeed.zero.GatheredParameters
        self._shapes = {name: tuple(parameter.shape) for name, parameter in classifier.named_parameters()}
        self.model: Any
        self.model, self.optimizer, _, _ = deepspeed.initialize(
            model=classifier, optimizer=build_optimizer(), config=self.config, dist_init_required=False
        )
        self.torch_optimizer = self.optimizer.optimizer
        self._names = {id(parameter): name for name, parameter in classifier.named_parameters()}
        trained = [(name, one) for name, one in classifier.named_parameters() if one.requires_grad]
        self._idle = {name for name, _ in trained}
        self._watched = [one.register_hook(lambda _, name=name: self._idle.discard(name)) for name, one in trained]

    @contextmanager
    def micro_batch(self, *, last: bool) -> Iterator[None]:
        self.model.set_gradient_accumulation_boundary(last)
        yield

    @contextmanager
    def autocast(self) -> Iterator[None]:
        yield  # the engine does it in its forward

    def backward(self, loss: Tensor) -> None:
        self.model.backward(loss, scale_wrt_gas=False)

    def update(self, *, measure: bool) -> Tensor | None:
        """See `Strategy.update`.

        Raises:
            UserError: in the first step, a trained parameter had no part in the loss. DeepSpeed would use a gradient of
                zeros, so that weight decay and momentum change the parameter, as under no other strategy. Or the
                gradient is not finite: DeepSpeed would skip such steps silently.
        """
        if self._watched:
            refuse_idle([name for name in self._names.values() if name in self._idle], f"Under zero{self.stage}")
            for hook in self._watched:
                hook.remove()
            self._watched = []
        self.model.step()  # clips, steps and clears
        if self.optimizer.overflow:  # of all ranks
            raise UserError(
                "the loss is finite and its gradient is not: lower optimizer.lr, lengthen the warm-up, or look for an "
                "operation of the model without a derivative at some of its values, such as sqrt at 0"
            )
        return self.model.get_global_grad_norm() if measure or self.config["gradient_clipping"] else None

    def weights(self) -> list[tuple[Tensor, Run]]:
        if self.replicated:
            return [(parameter, whole_run(name, parameter)) for name, parameter in self.classifier.named_parameters()]
        return [(parameter.ds_tensor, self._part(parameter)) for parameter in self._parameters()]

    def held(self) -> list[Held]:
        """One flat tensor for each group of parameters; in stage 3 for each part of a group that is updated at once."""
        if self.stage == 3:
            pairs = zip(self.optimizer.fp32_partitioned_groups_flat, self.optimizer.fp16_groups, strict=True)
        else:
            pairs = zip(self.optimizer.single_partition_of_fp32_groups, self.optimizer.bit16_groups, strict=True)
        return [
            Held(flat, list(self._runs(parameters)), [self._names[id(parameter)] for parameter in parameters])
            for flat, parameters in pairs
        ]

    def gathered(self) -> Iterator[tuple[str, Tensor]]:
        self._release()
        for parameter in self._parameters():
            if self.replicated:
                yield self._names[id(parameter)], parameter
            else:
                with self._gather([parameter]):
                    yield self._names[id(parameter)], parameter

    def weights_changed(self) -> None:
        self.optimizer.refresh_fp32_params()  # a copy, even if the weights are fp32
        self._release()
        if self.stage == 3 and (small := self.optimizer.persistent_parameters):
            small[0].all_gather(small)  # small parameters are also kept whole on every rank

    def assert_in_effect(self) -> None:
        engine, config = self.model, self.config
        assert engine.zero_optimization_stage() == self.stage
        assert engine.dp_world_size == torch.distributed.get_world_size() == self.accelerator.num_processes
        assert engine.gradient_accumulation_steps() == config["gradient_accumulation_steps"]
        assert engine.train_micro_batch_size_per_gpu() == config["train_micro_batch_size_per_gpu"]
        assert engine.gradient_clipping() == config["gradient_clipping"] == self.optimizer.clip_grad
        assert engine.torch_autocast_enabled() == config["torch_autocast"]["enabled"]
        assert not engine.fp16_enabled()
        assert not engine.bfloat16_enabled()
        assert {held.tensor.dtype for held in self.held()} == {torch.float32}

    def _release(self) -> None:
        """In stage 3 keep only this rank's parts.

        A forward pass without a backward leaves parameters whole, or on their way, and the next one would use them as
        they are.
        """
        if self.stage == 3:
            self.optimizer.empty_partition_cache()

    def _parameters(self) -> Iterator[Any]:
        return iter(self.classifier.parameters())

    def _part(self, parameter: Any, offset: int = 0) -> Run:
        """In stage 3: each parameter is cut into equal parts, the last of which are padded."""
        name = self._names[id(parameter)]
        size, part = parameter.ds_numel, parameter.ds_tensor.ds_numel
        start = min(size, part * self.accelerator.process_index)
        return Run(name, self._shapes[name], start, min(size - start, part), offset)

    def _runs(self, parameters: list[Any]) -> Iterator[Run]:
        offset = 0
        for parameter in parameters:
            name = self._names[id(parameter)]
            if self.stage == 3:
                yield self._part(parameter, offset)
                offset += parameter.ds_tensor.ds_numel
            elif (fragment := parameter._hp_mapping) is not None:
                here, there = fragment.lp_fragment_address, fragment.hp_fragment_address
                yield Run(name, self._shapes[name], here.start, here.numel, there.start)


def _deepspeed(accelerator: Accelerator) -> Any:
    """Import the package late (it takes seconds and is an extra), without warnings about what is intended."""
    # Without these it guesses the device with a warning, and does not start without a launcher.
    os.environ.setdefault("DS_ACCELERATOR", accelerator.device.type)
    os.environ.setdefault("LOCAL_RANK", str(accelerator.local_process_index))
    import deepspeed

    # On a CPU it would compile an all-reduce through shared memory: a minute, and different rounding.
    backend: Any = importlib.import_module(
        "deepspeed.comm.torch"
    )  # not the attribute of that name, which is torch itself
    backend.build_shm_op = lambda: None
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # "untested optimizer": tests/engine/test_strategies.py
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    return deepspeed
