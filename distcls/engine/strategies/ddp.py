"""DistributedDataParallel: every rank holds everything, gradients are averaged. Also used for a single process."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distcls.engine.strategies.shards import Run, whole_run
from distcls.engine.strategies.strategy import TorchStrategy, refuse_idle


class DDP(TorchStrategy):
    """DDP through accelerate, without broadcasting buffers (see accelerator.py)."""

    replicated = True
    replicated_optimizer = True

    def __init__(
        self,
        accelerator: Accelerator,
        classifier: nn.Module,
        build_optimizer: Callable[[], torch.optim.Optimizer],
        *,
        clip_grad_norm: float | None,
    ) -> None:
        super().__init__(accelerator, classifier, clip_grad_norm)
        self.torch_optimizer = build_optimizer()
        # the option that replaces it in torch 2.14 still broadcasts rank 0's buffers once, at the start
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
        # Both are on their device already; to check that, accelerate would import DTensor: half a second.
        self.model, self.optimizer = accelerator.prepare(
            classifier, self.torch_optimizer, device_placement=[False, False]
        )
        self._trained = [(name, one) for name, one in classifier.named_parameters() if one.requires_grad]
        if isinstance(self.model, DistributedDataParallel) and accelerator.num_processes > 2:
            self._fix_buckets(self.model)

    def _fix_buckets(self, model: DistributedDataParallel) -> None:
        """Run a backward pass of zeros, so that gradients are in the same buckets in every step of every attempt.

        After its first backward pass DDP rebuilds its buckets in the order in which the gradients arrived. With three
        or more ranks the order of additions depends on a gradient's place in its bucket, so the first step of a resumed
        attempt would round differently from the same step of an uninterrupted run.
        """
        model.reducer.prepare_for_backward([])
        torch.stack([parameter.sum() * 0 for _, parameter in self._trained]).sum().backward()
        self.torch_optimizer.zero_grad()

    @contextmanager
    def micro_batch(self, *, last: bool) -> Iterator[None]:
        if last:
            yield
        else:
            with self.accelerator.no_sync(self.model):
                yield

    def update(self, *, measure: bool) -> Tensor | None:
        """See `Strategy.update`.

        Raises:
            UserError: on several ranks, a trained parameter had no part in the loss; torch would wait for its gradient
                for ever, or fail in the next step.
        """
        if isinstance(self.model, DistributedDataParallel):
            refuse_idle([name for name, one in self._trained if one.grad is None], "On several ranks")
        return super().update(measure=measure)

    def weights(self) -> list[tuple[Tensor, Run]]:
        return [(parameter, whole_run(name, parameter)) for name, parameter in self.classifier.named_parameters()]

    def gathered(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.classifier.named_parameters()

    def weights_changed(self) -> None:
        """Nothing to do: there are no copies."""

    def assert_in_effect(self) -> None:
        super().assert_in_effect()
        ranks = self.accelerator.num_processes
        assert isinstance(self.model, DistributedDataParallel) == (ranks > 1)
        if isinstance(self.model, DistributedDataParallel):
            assert torch.distributed.get_world_size(self.model.process_group) == ranks
            assert not self.model.broadcast_buffers
