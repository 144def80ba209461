"""What the train loop, evaluation and checkpoints know of a strategy."""

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
    """One model on many ranks: how it is called, how gradients become an update, and who holds what.

    Attributes:
        model: the wrapped classifier; every call is a collective.
        optimizer: its `param_groups` carry the learning rate of the next update.
        torch_optimizer: the optimizer itself, whose `state` is keyed by the tensors of `held`.
        replicated: every rank holds all weights. replicated_optimizer: and all of the optimizer's state.
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
        """Around forward and backward of one micro-batch; only the `last` of an update has to exchange gradients."""

    @abstractmethod
    def autocast(self) -> AbstractContextManager:
        """Around forward passes: the recipe's precision."""

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, which is divided by the number of micro-batches already."""

    @abstractmethod
    def update(self, *, measure: bool) -> Tensor | None:
        """Clip, step, clear the gradients.

        Returns:
            The gradient's L2 norm before clipping, over all ranks; None where nobody clips or wants to `measure` it.
        """

    @abstractmethod
    def weights(self) -> list[tuple[Tensor, Run]]:
        """Every parameter, frozen ones too, in the model's order: the tensor here that holds it, and what it holds."""

    @abstractmethod
    def held(self) -> list[Held]:
        """What the optimizer updates on this rank."""

    @abstractmethod
    def gathered(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter whole, one after the other; collective. Use each before asking for the next."""

    @abstractmethod
    def assert_in_effect(self) -> None:
        """The libraries do what the recipe says: strategy, world size, precision, accumulation, clipping."""

    @abstractmethod
    def weights_changed(self) -> None:
        """Call it after writing to `weights()`: copies that the libraries keep follow."""

    def local_weights(self) -> dict[str, Tensor]:
        """This rank's part of every parameter, in place."""
        return {run.name: run.within(tensor.detach()) for tensor, run in self.weights()}

    def weights_norm(self) -> Tensor:
        """The L2 norm of this rank's part of the weights: not finite as soon as one of them is not."""
        return nn.utils.get_total_norm(self.local_weights().values())


class TorchStrategy(Strategy):
    """What DDP and FSDP2 share: accelerate's backward and scaler, torch's clipping and optimizer."""

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
            # torch's own: before it accelerate's looks for meshes of DTensors, of which there is one at most
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
    """Raise a UserError if there are `names`, of parameters that are trained and had no part in the loss."""
    if names:
        listed = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise UserError(
            f"{len(names)} parameters had no part in the loss: {listed}. {where} every parameter that is trained must "
            "have one in every step: take out the layers that are not used, or name them in model.freeze"
        )
