"""Compares two runs: samples, learning rates, losses, weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from distcls.engine.checkpoints.tensor_file import load_weights
from distcls.engine.records.batch_record import read_batches
from distcls.engine.verify.trials import Trial
from distcls.tracking.jsonl import read_rows

NORMS = "running_mean"  # tensors of this name show that the model has BatchNorm
# A run that changes its number of processes has the rounding errors of the undisturbed runs, only at other steps, so
# its differences are of the same order of magnitude as theirs.
LENIENCE = 10


@dataclass(frozen=True)
class Proof:
    """What was compared, over how many steps, and the outcome. `holds` is None for a difference that is no fault."""

    trial: str
    compared: str
    steps: int
    outcome: str
    holds: bool | None


def compare(trial: Trial, reference: Trial, *, exact: bool, bound: float | None = None) -> list[Proof]:
    """Proofs that `trial` is the same run as `reference`; a single failed one if it was never interrupted.

    Samples and learning rates must always be equal. For equal numbers of processes, losses and weights must be equal if
    the numbers are `exact` and their difference is only reported otherwise; for other numbers of processes, losses
    alone are compared, within `bound`.

    Args:
        exact: the numbers are reproducible bit for bit, as on a CPU.
        bound: largest allowed difference of losses for other numbers of processes, see `loss_bound`; with None the
            difference is only reported.
    """
    if trial.missed:
        return [Proof(trial.story, "interruption", len(_of(trial.run, "train/loss")), trial.missed, False)]
    alike = trial.processes == reference.processes
    if not alike:
        trial = replace(trial, story=f"{trial.story}, against {reference.story}")
    proofs = [_samples(trial, reference), _series(trial, reference, "learning rates", "optim/lr", True, "")]
    theirs = _weights(reference.run)
    if alike:
        why = "" if exact else "a GPU adds in no fixed order"
    elif any(name.endswith(NORMS) for name in theirs):
        why = "BatchNorm sees other micro-batches"
    else:
        why = "sums are taken in another order"
    limit = None if alike else bound
    proofs.append(_series(trial, reference, "losses", "train/loss", exact and alike, why, limit))
    if alike:
        proofs.append(_compared_weights(trial, theirs, exact, why))
    return proofs


def loss_bound(references: Sequence[Trial], precision: str) -> float:
    """The largest allowed difference of losses for a run that changes between the numbers of processes of `references`.

    `LENIENCE` times the largest difference between the first undisturbed reference and another, which comes from the
    order of summation and BatchNorm's micro-batches; at least `LENIENCE` times the rounding error of the largest loss,
    for references that happen to be equal.
    """
    losses = [_of(reference.run, "train/loss") for reference in references]
    apart = max(_gap(losses[0][step], other[step]) for other in losses[1:] for step in losses[0].keys() & other.keys())
    rounding = torch.finfo(torch.float64 if precision == "fp64" else torch.float32).eps
    return LENIENCE * max(apart, rounding * max(map(abs, losses[0].values())))


def _compared_weights(trial: Trial, theirs: Mapping[str, Tensor], exact: bool, why: str) -> Proof:
    ours, steps = _weights(trial.run), len(_of(trial.run, "train/loss"))
    off = [name for name in theirs if name not in ours or not _same_bits(ours[name], theirs[name])]
    if not off:
        return Proof(trial.story, "weights at the end", steps, f"equal: {len(theirs)} tensors, bit for bit", True)
    outcome = f"{len(off)} of {len(theirs)} tensors differ" + (f": {why}" if why else "")
    return Proof(trial.story, "weights at the end", steps, outcome, False if exact else None)


def _samples(trial: Trial, reference: Trial) -> Proof:
    ours, theirs = read_batches(trial.run), read_batches(reference.run)
    name = "samples: order and pixels"
    first = next((step for step in sorted(theirs) if ours.get(step) != theirs[step]), None)
    if first is None and len(ours) == len(theirs):
        number = sum(map(len, theirs.values()))
        return Proof(trial.story, name, len(theirs), f"equal: {number:,} samples", True)
    if first is None:
        return Proof(trial.story, name, len(theirs), f"{len(ours)} steps against {len(theirs)}", False)
    mine = ours.get(first, [])
    same_order = [index for index, _ in mine] == [index for index, _ in theirs[first]]
    what = "the same images with other pixels" if same_order else "other images" if mine else "no record"
    return Proof(trial.story, name, len(theirs), f"{what} at step {first}", False)


def _series(
    trial: Trial, reference: Trial, name: str, key: str, must: bool, why: str, limit: float | None = None
) -> Proof:
    ours, theirs = _of(trial.run, key), _of(reference.run, key)
    if ours.keys() != theirs.keys():
        return Proof(trial.story, name, len(theirs), f"{len(ours)} steps against {len(theirs)}", False)
    gaps = {step: _gap(ours[step], theirs[step]) for step in sorted(theirs)}
    largest = max(gaps.values())
    if largest == 0:
        return Proof(trial.story, name, len(theirs), "equal", True)
    if largest == math.inf:
        step = next(step for step, gap in gaps.items() if gap == math.inf)
        return Proof(trial.story, name, len(theirs), f"{ours[step]:g} against {theirs[step]:g} at step {step}", False)
    outcome = f"differ by {largest:.3g} at most" + (f": {why}" if why else "")
    if must or limit is None:
        return Proof(trial.story, name, len(theirs), outcome, False if must else None)
    outcome += f"; allowed: {limit:.3g}, {LENIENCE} times what undisturbed runs differ by"
    return Proof(trial.story, name, len(theirs), outcome, None if largest <= limit else False)


def _gap(one: float, other: float) -> float:
    """The absolute difference of two numbers: 0 between NaNs, infinite between NaN and a number."""
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    gap = abs(one - other)
    return math.inf if math.isnan(gap) else gap


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Bitwise equality: unlike with `Tensor.equal`, NaN equals NaN, and 0 differs from -0."""
    alike = one.dtype == other.dtype and one.shape == other.shape
    return alike and one.flatten().view(torch.uint8).equal(other.flatten().view(torch.uint8))


def _of(run: Path, key: str) -> dict[int, float]:
    return {row["step"]: row[key] for row in read_rows(run) if key in row}


def _weights(run: Path) -> Mapping[str, Tensor]:
    return load_weights(run / "weights" / "last.safetensors")[0]
