"""Two runs held against each other: samples, learning rates, losses, weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from distcls.engine.checkpoints.tensor_file import load_weights
from distcls.engine.records.batch_record import read_batches
from distcls.engine.verify.trials import Trial
from distcls.tracking.jsonl import read_rows

NORMS = "running_mean"  # a weights file with one of these has a BatchNorm


@dataclass(frozen=True)
class Proof:
    """What was compared, over how many steps, and what came of it. `holds` is None where a difference is no fault."""

    trial: str
    compared: str
    steps: int
    outcome: str
    holds: bool | None


def compare(trial: Trial, reference: Trial, *, exact: bool) -> list[Proof]:
    """Proofs that `trial` is the run that `reference` is.

    Samples and learning rates must be equal always. Losses and weights must be where the numbers are `exact`: on a CPU,
    on equally many processes; elsewhere their largest difference is told.
    """
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
    proofs.append(_series(trial, reference, "losses", "train/loss", exact and alike, why))
    if alike:
        proofs.append(_compared_weights(trial, theirs, exact, why))
    return proofs


def _compared_weights(trial: Trial, theirs: Mapping[str, Tensor], exact: bool, why: str) -> Proof:
    ours, steps = _weights(trial.run), len(_of(trial.run, "train/loss"))
    off = [name for name in theirs if name not in ours or not ours[name].equal(theirs[name])]
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


def _series(trial: Trial, reference: Trial, name: str, key: str, must: bool, why: str) -> Proof:
    ours, theirs = _of(trial.run, key), _of(reference.run, key)
    if ours.keys() != theirs.keys():
        return Proof(trial.story, name, len(theirs), f"{len(ours)} steps against {len(theirs)}", False)
    largest = max(abs(ours[step] - theirs[step]) for step in theirs)
    if largest == 0:
        return Proof(trial.story, name, len(theirs), "equal", True)
    outcome = f"differ by {largest:.3g} at most"
    return Proof(trial.story, name, len(theirs), outcome + (f": {why}" if why else ""), False if must else None)


def _of(run: Path, key: str) -> dict[int, float]:
    return {row["step"]: row[key] for row in read_rows(run) if key in row}


def _weights(run: Path) -> Mapping[str, Tensor]:
    return load_weights(run / "weights" / "last.safetensors")[0]
