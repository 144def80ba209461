"""The whole train loop, to be read from top to bottom.

Everything that a step uses follows from the recipe and the step's number: the batch (from seed and epoch), the
learning rate, the seed of dropout. So a run that resumes at step N continues exactly as if it had never been killed.
"""

import time
from typing import Literal

from distcls.engine.checkpoints.progress import Progress, criterion
from distcls.engine.checkpoints.snapshot import Snapshots
from distcls.engine.evaluate import evaluate
from distcls.engine.evaluation.class_file import record_classes
from distcls.engine.evaluation.prediction_files import record_predictions
from distcls.engine.evaluation.predictions import Predictions
from distcls.engine.job import Job
from distcls.engine.rows import Rows
from distcls.engine.seeding import seed_micro_batch
from distcls.engine.stopping.agreement import Agreement
from distcls.engine.strategies.buffers import averaged_buffers
from distcls.engine.totals import Totals
from distcls.errors import UserError


class NonFiniteLoss(UserError):
    """The loss or the weights became NaN or infinite. Such weights are useless and never saved."""


def train(job: Job, snapshots: Snapshots, progress: Progress, window: Totals) -> Literal["finished", "preempted"]:
    """Train from `progress.step` to the recipe's end.

    Args:
        snapshots: writes checkpoints, in the background, and weights.
        progress: where to start; kept up to date.
        window: the sums of the logging window that is open at `progress.step`.

    Returns:
        "finished", or "preempted" once all ranks have agreed on a stop request. Either way a checkpoint holds the last
        step.

    Raises:
        NonFiniteLoss: with the step, the learning rate and the last good checkpoint.
    """
    strategy, model = job.strategy, job.strategy.model
    agreement = Agreement(job.device, job.world_size)
    rows = Rows(job, progress.step)
    stopping = False
    if job.evaluation_due(progress.step) and progress.evaluated < progress.step:
        with rows.standing_still("evaluation"):
            if not _evaluated(job, snapshots, progress):
                return "preempted"
            # The checkpoint taken when the evaluation was cut short does not have its result.
            snapshots.save(progress, window, required=progress.step >= job.total_steps)

    model.train()
    with job.train_loader.stream(progress.step, job.total_steps) as batches:
        for step in range(progress.step, job.total_steps):
            factor = job.schedule(step)
            for group in strategy.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

            for micro in range(job.accumulation_steps):
                job.heart.beat(step + 1, "waiting for data")
                batch = next(batches)
                job.heart.beat(step + 1, "training")
                seed_micro_batch(job.seed, step, micro * job.world_size + job.rank)
                with strategy.micro_batch(last=micro == job.accumulation_steps - 1):
                    with strategy.autocast():
                        values = model(batch.images, batch.target)
                    strategy.backward(values["loss"] / job.accumulation_steps)
                window.add(values, batch.count)
            logging = job.logging_due(step + 1)
            norm = strategy.update(measure=logging)
            progress.step = step + 1
            if job.ema is not None:
                job.ema.update(progress.step)

            evaluating, saving = job.evaluation_due(progress.step), job.checkpoint_due(progress.step)
            agreement.post(progress.step, stop=job.stop.requested is not None, number=window.sums.sum())
            agreement.update()
            if evaluating or saving or agreement.stop:  # a finite loss may have a gradient that is not
                agreement.post(progress.step, stop=False, number=strategy.weights_norm())
                agreement.update(wait=True)
            if agreement.broken_at is not None:
                raise _non_finite(job, snapshots, agreement.broken_at)
            if logging:
                rows.begin(progress.step, window.reduce(), factor, norm)
            rows.write(all_now=evaluating or saving or agreement.stop)
            snapshots.poll()
            job.console.advance(progress.step)

            stopping = agreement.stop
            if evaluating and not stopping:
                with rows.standing_still("evaluation"):
                    stopping = not _evaluated(job, snapshots, progress)
            if saving or stopping:
                with rows.standing_still("checkpoint"):
                    job.heart.beat(progress.step, "saving")
                    required = stopping or progress.step == job.total_steps
                    rows.add_stall(snapshots.save(progress, window, required=required))
            if stopping or progress.step % job.steps_per_epoch == 0 or progress.step == job.total_steps:
                rows.end_epoch(progress.step)
            if stopping:
                break
    rows.write(all_now=True)
    return "preempted" if stopping else "finished"


def _evaluated(job: Job, snapshots: Snapshots, progress: Progress) -> bool:
    """Evaluate, log, keep the best weights. False if a stop request cut it short; the next attempt repeats it."""
    began = time.perf_counter()
    job.heart.beat(progress.step, "evaluating")
    predictions = job.predictions if progress.step >= job.total_steps else None
    with averaged_buffers(job.classifier, job.world_size):
        means = _means(job, predictions)
    if means is None:
        return False
    values = {f"val/{name}": value for name, value in means.items()}
    if job.ema is not None:
        with job.ema.applied(), averaged_buffers(job.classifier, job.world_size):
            means = _means(job, predictions)
        if means is None:
            return False
        values |= {f"val_ema/{name}": value for name, value in means.items()}
    progress.record(means)  # of the EMA weights if there are any: "best" refers to them, and they are exported
    if progress.best["step"] == progress.step:
        snapshots.export("best", progress)
    if job.metrics is not None and job.rank == 0:
        found, last = {**means, **job.metrics.per_class}, progress.step >= job.total_steps
        record_classes(snapshots.run_folder, progress.step, found, job.trackers, last=last)
    name = criterion(means)
    best = {"best/step": progress.best["step"], f"best/val_{name}": progress.best[name]}
    job.log({**job.position(progress.step), **values, **best, "perf/eval_s": time.perf_counter() - began})
    if predictions is not None:
        predicted, position = predictions.result(), job.position(progress.step)
        if job.rank == 0:
            dataset, averaged = job.val_loader.dataset, job.ema is not None
            record_predictions(snapshots.run_folder, position, predicted, dataset, job.trackers, averaged=averaged)
    return True


def _means(job: Job, predictions: Predictions | None) -> dict[str, float] | None:
    return evaluate(
        job.strategy.model,
        job.classifier,
        job.val_loader,
        device=job.device,
        world_size=job.world_size,
        autocast=job.strategy.autocast,
        tta=job.tta,
        stop_requested=lambda: job.stop.requested is not None,
        beat=job.heart.again,
        metrics=job.metrics,
        predictions=predictions,
    )


def _non_finite(job: Job, snapshots: Snapshots, step: int) -> NonFiniteLoss:
    rate = job.learning_rates["optim/lr"] * job.schedule(step - 1)
    return NonFiniteLoss(
        f"the loss or the weights are not finite at step {step} (epoch {step / job.steps_per_epoch:.2f}), "
        f"at learning rate {rate:.6g}; "
        f"the last good checkpoint is {snapshots.newest() or 'none: no checkpoint was written before'}. "
        "Lower optimizer.lr, lengthen the warm-up, set train.clip_grad_norm, or use a wider train.precision"
    )
