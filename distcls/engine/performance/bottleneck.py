"""Determines what limits the speed of a run from the shares of its time, and which recipe key to change first."""

from collections.abc import Mapping
from dataclasses import dataclass

AVOIDABLE = ("data", "copy", "communication", "evaluation", "checkpoint")
NOTABLE = 0.1  # share of the time below which nothing is gained


@dataclass(frozen=True)
class Settings:
    """The settings that the advice depends on.

    Attributes:
        cores: per rank, for its data threads.
        compiled: by train.compile or train.cuda_graphs.
        gpu: whether the model is on a GPU.
    """

    workers: int
    cores: int
    precision: str
    compiled: bool
    accumulation_steps: int
    global_batch_size: int
    evaluate_every_epochs: float
    checkpoint_every_steps: int
    gpu: bool


@dataclass(frozen=True)
class Verdict:
    """`bottleneck` is the largest avoidable share if it is at least NOTABLE, else "compute"."""

    bottleneck: str
    share: float
    advice: str

    def line(self, shares: Mapping[str, float]) -> str:
        """``bottleneck data 41% (compute 52%, evaluation 7%): ...``, without shares below 1%."""
        others = sorted((item for item in shares.items() if item[0] != self.bottleneck), key=lambda item: -item[1])
        rest = ", ".join(f"{name} {100 * share:.0f}%" for name, share in others if share >= 0.01)
        return f"bottleneck {self.bottleneck} {100 * self.share:.0f}%{f' ({rest})' if rest else ''}: {self.advice}"


def verdict(shares: Mapping[str, float], settings: Settings) -> Verdict:
    """What limits a run that spent these shares of its time (by phases.PHASES, adding up to 1)."""
    largest = max(AVOIDABLE, key=lambda name: shares.get(name, 0.0))
    name = largest if shares.get(largest, 0.0) >= NOTABLE else "compute"
    return Verdict(name, shares[name], _ADVICE[name](settings))


def _data(settings: Settings) -> str:
    if settings.workers < settings.cores:
        return f"raise data.workers, now {settings.workers} of {settings.cores} cores a rank"
    return (
        f"all {settings.cores} cores of a rank decode: write smaller or raw images (`distcls data convert "
        "--max-resolution, --write-mode raw`) for data.train.path, or lower data.resolution"
    )


def _copy(settings: Settings) -> str:
    if settings.gpu and settings.precision == "fp32":
        return "set train.precision=bf16, which halves the bytes, or take from data.augment what changes pixels"
    return "take from data.augment what changes pixels (not crops and flips), or lower data.resolution"


def _communication(settings: Settings) -> str:
    return (
        f"raise train.accumulation_steps, now {settings.accumulation_steps}, together with train.global_batch_size, "
        f"now {settings.global_batch_size}: ranks exchange gradients once an update"
    )


def _evaluation(settings: Settings) -> str:
    return f"raise eval.every_epochs, now {settings.evaluate_every_epochs:g}"


def _checkpoint(settings: Settings) -> str:
    return f"raise checkpoint.every_steps, now {settings.checkpoint_every_steps}"


def _compute(settings: Settings) -> str:
    if settings.gpu and settings.precision in ("fp32", "fp64"):
        return "as it should be; train.precision=bf16 makes it faster"
    if settings.gpu and not settings.compiled:
        return "as it should be; train.compile=true makes it faster"
    return "as it should be; only a smaller model.backbone or data.resolution, or more devices, make it faster"


_ADVICE = {
    "data": _data,
    "copy": _copy,
    "communication": _communication,
    "evaluation": _evaluation,
    "checkpoint": _checkpoint,
    "compute": _compute,
}
