"""Loads checkpoints with any supported library's names into a classifier, with a report of every entry."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor, nn

from distcls.errors import UserError
from distcls.models.weights.checkpoint import Checkpoint, entries_below
from distcls.models.weights.report import Report, some
from distcls.models.weights.rules import Family, Renamed, family_of
from distcls.models.weights.same_function import beyond, refusal, warnings
from distcls.models.weights.timm_names import TIMM
from distcls.models.weights.torchvision_names import TORCHVISION

NameMap = Literal["auto", "none", "openmmlab", "torchvision", "timm", "distcls"]
#: Fraction of the backbone's parameter elements that a checkpoint must contain.
LEAST_MATCH = 0.9
LIBRARIES: dict[str, Mapping[str, Family]] = {"torchvision": TORCHVISION, "timm": TIMM}


def load_checkpoint(
    model: nn.Module, checkpoint: Checkpoint, map: NameMap = "auto", allow_low_match: bool = False
) -> Report:
    """Load the entries that fit into `model`, a classifier with `backbone` and `head`.

    Position embeddings and bias tables are resized; a classifier for another number of classes is left out. Entries are
    reshaped if their shapes differ only in axes of length one (a linear layer and a 1x1 convolution), or if they are a
    convolution over a whole map that the model flattens.

    Args:
        map: the library whose names the file has; "auto" tries all and takes the best match, "none" renames nothing.
        allow_low_match: load even if the checks below fail.

    Raises:
        UserError: less than 90% of the backbone's parameter elements are there, or the file's network computes
            something else, and `allow_low_match` is not set; or there is no mapping from that library to this
            backbone. The model is then unchanged.
    """
    best = _best_reading(model, checkpoint, map)
    if best is None:
        name = type(model.backbone).__name__
        raise UserError(f"no {map} model has the layers of {name}: expected map none, openmmlab or distcls")
    report, state = best
    if report.match < LEAST_MATCH and not allow_low_match:
        raise UserError(_too_little(report, model, _prefix_that_fits(model, checkpoint, map)))
    if not allow_low_match and (reason := refusal(model, report)):
        raise UserError(reason)
    model.load_state_dict(state, strict=False)
    return report


def _best_reading(model: nn.Module, checkpoint: Checkpoint, map: NameMap) -> tuple[Report, dict[str, Tensor]] | None:
    """Report and loadable entries under the naming that fits best; None if no mapping applies."""
    found = [
        _compare(model, renamed, Report(checkpoint.path, source, notes=checkpoint.notes))
        for source, renamed in _readings(model, checkpoint.tensors, map)
    ]
    # libraries with equal names in the backbone (torchvision's ResNet and ours) may still differ in the head
    return max(found, key=lambda one: _quality(one[0]), default=None)


def _prefix_that_fits(model: nn.Module, checkpoint: Checkpoint, map: NameMap) -> str | None:
    """The first top-level prefix whose entries match well enough: ``encoder_q.`` of a self-supervised model."""
    for prefix in dict.fromkeys(f"{name.partition('.')[0]}." for name in checkpoint.tensors):
        below = replace(checkpoint, tensors=entries_below(checkpoint.tensors, prefix))
        best = _best_reading(model, below, map)
        if best is not None and best[0].match >= LEAST_MATCH:
            return checkpoint.prefix + prefix
    return None


def _quality(report: Report) -> tuple[float, int, int]:
    """Sort key: of two readings that load as much, prefer the one that recognises the classifier it drops."""
    return report.match, len(report.loaded), -len(report.unused)


def _readings(model: nn.Module, tensors: Mapping[str, Tensor], map: NameMap) -> list[tuple[str, Mapping[str, Renamed]]]:
    """(library, entries renamed as if it had written the file), for each library that `map` allows."""
    readings: list[tuple[str, Mapping[str, Renamed]]] = []
    if map in ("auto", "openmmlab"):
        readings.append(("openmmlab", _openmmlab(model, tensors)))
    elif map in ("none", "distcls"):
        readings.append((map, {name: Renamed(name, entry) for name, entry in tensors.items()}))
    for library, table in LIBRARIES.items():
        family = family_of(model.backbone, table)
        if map in ("auto", library) and family is not None:
            readings.append((library, family.rename(tensors, model.backbone)))
    return readings


def _openmmlab(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Renamed]:
    """Our names are those of OpenMMLab, except of older versions; a bare backbone's names get their prefix."""
    bare = not any(name.startswith(("backbone.", "head.")) for name in tensors)
    last = len(getattr(model.backbone, "depths", ())) - 1
    renamed = {}
    for old, entry in tensors.items():
        new = f"backbone.{old}" if bare else old
        if type(model.backbone).__name__ == "SwinTransformer":  # before MMClassification 0.12
            new = new.replace("backbone.norm.", f"backbone.norm{last}.")
        renamed[new] = Renamed(old, entry)
    return renamed


def _compare(model: nn.Module, renamed: Mapping[str, Renamed], report: Report) -> tuple[Report, dict[str, Tensor]]:
    """The filled-in report and the entries that can be loaded, in the model's shapes."""
    own, parameters = model.state_dict(), dict(model.named_parameters())
    given = {name: one.entry for name, one in renamed.items()}
    fitted = _fit(model, given)
    state = {}
    for name, ours in own.items():
        if name not in given:
            if name not in fitted:
                report.missing.append(name)
            continue
        entry = fitted[name]
        if entry.shape != ours.shape and _same_numbers(entry, ours):
            entry = entry.reshape(ours.shape)
        if entry.shape != ours.shape:
            kind = report.dropped if _is_classifier(model, name, ours) else report.misfits
            kind.append((name, entry.shape, ours.shape))
            continue
        state[name] = entry
        report.loaded.append(name)
        if renamed[name].old != name:
            report.renamed.append((renamed[name].old, name))
        if given[name].numel() != ours.numel() and name in parameters:  # without buffers: an index into a resized table
            report.resized.append(name)
    report.missing += [name for name, *_ in (*report.dropped, *report.misfits)]
    report.unused = [one.old for name, one in renamed.items() if name not in own]
    report.beyond = beyond(model, renamed)
    report.match = _match(model, report.loaded)
    report.warnings = warnings(model, renamed, report)
    return report, state


def _same_numbers(entry: Tensor, ours: Tensor) -> bool:
    """Whether reshaping keeps the meaning of each number.

    The shapes differ only in axes of length one, or the entry is a convolution over a whole map (timm's VGG), equal to
    our linear layer on the flattened map.
    """
    lengths, own = ([length for length in one.shape if length != 1] for one in (entry, ours))
    return lengths == own or (entry.ndim == 4 and entry.flatten(1).shape == ours.shape)


def _fit(model: nn.Module, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries after the model's modules have resized their own and added those that follow from their size."""
    fitted = dict(given)
    for prefix, module in model.named_modules():
        fit: Any = getattr(module, "fit_position_embedding", None)
        if fit is not None:
            fit(fitted, f"{prefix}.")
    return fitted


def _is_classifier(model: nn.Module, name: str, entry: Tensor) -> bool:
    """Whether an entry depends on the number of classes: in the head, or the last layer of a backbone such as VGG."""
    classes = getattr(model.backbone, "num_classes", None)
    return name.startswith("head.") or (name.startswith("backbone.classifier.") and entry.shape[0] == classes)


def _match(model: nn.Module, loaded: list[str]) -> float:
    sizes = {
        f"backbone.{name}": parameter.numel()
        for name, parameter in model.backbone.named_parameters()  # type: ignore[union-attr]
        if not _is_classifier(model, f"backbone.{name}", parameter)
    }
    return sum(sizes.get(name, 0) for name in loaded) / max(1, sum(sizes.values()))


def _too_little(report: Report, model: nn.Module, prefix: str | None) -> str:
    parameters = dict(model.named_parameters())
    missing = [name for name in report.missing if name in parameters and name.startswith("backbone.")]
    text = (
        f"{report.path}: only {report.match:.1%} of the parameter elements of {type(model.backbone).__name__} "
        f"are in it (read with {report.source} names), expected {LEAST_MATCH:.0%}. Missing: {some(missing)}. "
    )
    if report.misfits:
        name, theirs, ours = report.misfits[0]
        text += f"Of another shape: {name} {list(theirs)}, not {list(ours)}. "
    if report.unused:
        text += f"Without a place: {some(report.unused)}. "
    if prefix is not None:
        return text + f"What begins with {prefix!r} would do: set `prefix: {prefix}`"
    return text + (
        "Is it another architecture? `map` and `prefix` say how to read names; `allow_low_match` takes it as it is"
    )
