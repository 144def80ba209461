"""The interface of a strategy to the train loop, evaluation and checkpoints."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from distcls.engine.strategies.shards import Held, Run
from distcls.errors import UserError


class Strategy(ABC):
    """One model on many ranks: how it is called and updated, and which rank holds which weights.

    Attributes:
        model: the wrapped classifier; every call is collective.
        optimizer: its `param_groups` carry the learning rate of the next update.
        torch_optimizer: the unwrapped optimizer, whose `state` is keyed by the tensors of `held`.
        replicated: every rank holds all weights.
        replicated_optimizer: every rank holds all of the optimizer's state.
    """

    model: nn.Module
    optimizer: Any
    torch_optimizer: torch.optim.Optimizer
    replicated: bool
    replicated_optimizer: bool

    def __init__(self, accelerator: Accelerator, classifier: nn.Module) -> None:
        self.accelerator = accelerator
        self.classifier = classifier

    @abstractmethod
    def micro_batch(self, *, last: bool) -> AbstractContextManager:
        """Context for forward and backward of a micro-batch; only the `last` one of an update exchanges gradients."""

    @abstractmethod
    def autocast(self) -> AbstractContextManager:
        """Context for forward passes, in the recipe's precision."""

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of `loss`, already divided by the number of micro-batches."""

    @abstractmethod
    def update(self, *, measure: bool) -> Tensor | None:
        """Clip, step, clear the gradients.

        Returns:
            The gradient's L2 norm over all ranks, before clipping; None without clipping unless `measure` is set.
        """

    @abstractmethod
    def weights(self) -> list[tuple[Tensor, Run]]:
        """For every parameter, also frozen ones, in the model's order: this rank's tensor, and what it holds."""

    @abstractmethod
    def held(self) -> list[Held]:
        """What the optimizer updates on this rank."""

    @abstractmethod
    def gathered(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter as a whole, one after the other. Collective. Each is valid until the next one is taken."""

    @abstractmethod
    def assert_in_effect(self) -> None:
        """Assert that the libraries follow the recipe: strategy, world size, precision, accumulation, clipping."""

    @abstractmethod
    def weights_changed(self) -> None:
        """Call it after writing to `weights()`, to update the copies that the libraries keep."""

    def local_weights(self) -> dict[str, Tensor]:
        """This rank's part of every parameter, not copied."""
        return {run.name: run.within(tensor.detach()) for tensor, run in self.weights()}

    def weights_norm(self) -> Tensor:
        """The L2 norm of this rank's part of the weights; not finite if one of them is not."""
        return nn.utils.get_total_norm(self.local_weights().values())


class TorchStrategy(Strategy):
    """The common part of DDP and FSDP2: accelerate's backward and scaler, torch's clipping and optimizer."""

    def __init__(self, accelerator: Accelerator, classifier: nn.Module, clip_grad_norm: float | None) -> None:
        super().__init__(accelerator, classifier)
        self.clip_grad_norm = clip_grad_norm

    @contextmanager
    def autocast(self) -> Iterator[None]:
        with self.accelerator.autocast():
            yield

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss)

    def update(self, *, measure: bool) -> Tensor | None:
        norm = None
        if self.clip_grad_norm is not None or measure:
            bound = math.inf if self.clip_grad_norm is None else self.clip_grad_norm  # inf multiplies by exactly 1
            self.accelerator.unscale_gradients()
            # torch's function: accelerate's would first search for several meshes of DTensors
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), bound)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def held(self) -> list[Held]:
        runs = {id(tensor): (tensor, run) for tensor, run in self.weights()}
        parameters = [one for group in self.torch_optimizer.param_groups for one in group["params"]]
        return [Held(tensor, [run], [run.name]) for tensor, run in (runs[id(one)] for one in parameters)]

    def assert_in_effect(self) -> None:
        accelerator = self.accelerator
        assert accelerator.gradient_accumulation_steps == 1  # the loop accumulates, and divides the loss itself
        assert self.optimizer.optimizer is self.torch_optimizer


def refuse_idle(names: Sequence[str], where: str) -> None:
    """Raise a UserError if `names`, the trained parameters that had no part in the loss, is not empty."""
    if names:
        listed = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise UserError(
            f"{len(names)} parameters had no part in the loss: {listed}. {where} every parameter that is trained must "
            "have one in every step: take out the layers that are not used, or name them in model.freeze"
        )
