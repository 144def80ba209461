"""What MMPretrain 1.2.0 computes, measured on torch 2.14.1, CPU, float32, and how to compare a model of ours with it.

The weights are synthetic: a function of each entry's state_dict name and shape alone, so that any implementation with
the same names can be given the same ones. `reference/NAME.json.gz` holds a model's config, entries and statistics per
backbone child, `NAME.npz` its logits; `losses`, `heads_necks` and `train_step` hold calls of single parts.
"""

import gzip
import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from distcls.models import ImageClassifier, build_classifier

FOLDER = Path(__file__).parent / "reference"


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers that belong to a name."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(tuple(shape))


def value(name: str, shape: tuple[int, ...], rule: str, gain: float = 1.0) -> np.ndarray:
    """The float64 value of a state_dict entry; `rule` is what the record says about it."""
    if rule == "zero":
        return np.zeros(shape)
    numbers = draw(name, shape)
    if rule == "weight":  # He's variance, so that magnitudes stay finite through a deep network
        return numbers * gain * math.sqrt(2.0 / math.prod(shape[1:]))
    small = 0.1 * numbers
    return {"scale": 1 + small, "rvar": 1 + abs(small)}.get(rule, small)


def images(shape: tuple[int, int, int, int]) -> torch.Tensor:
    """White noise on a coarse 4 x 4 pattern, so that the images of a batch differ after pooling."""
    n, c, height, width = shape
    coarse = draw("input.coarse", (n, c, 4, 4))
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return torch.from_numpy(draw("input", shape) + 2 * coarse[:, :, rows[:, None], columns]).float()


def fill(module: nn.Module, keys: list, gain: float = 1.0) -> None:
    """Give `module` the synthetic weights; `keys` are the record's [name, shape, dtype, kind, rule].

    Entries with rule keep or derived stay as built, "=NAME" is tied to another.
    """
    state = module.state_dict()
    for name, shape, _, _, rule in keys:
        if rule not in ("keep", "derived") and not rule.startswith("="):
            state[name].copy_(torch.from_numpy(value(name, shape, rule, gain)))


def model_record(name: str) -> dict:
    with gzip.open(FOLDER / f"{name}.json.gz") as file:
        return json.load(file)


def build(name: str) -> tuple[ImageClassifier, dict]:
    """The model of a record, filled, in eval mode; and the record."""
    record = model_record(name)
    # accuracy beside the loss is MMPretrain's option cal_acc; here it is always counted
    head = {key: value for key, value in record["config"]["head"].items() if key != "cal_acc"}
    model = build_classifier({**record["config"], "head": head}, tuple(record["input_shape"][2:]))
    parameters = dict(model.named_parameters())
    entries = [
        [key, list(entry.shape), str(entry.dtype).removeprefix("torch."), "param" if key in parameters else "buffer"]
        for key, entry in model.state_dict().items()
    ]
    assert entries == [key[:4] for key in record["keys"]]
    fill(model, record["keys"], record["fill_gain"])
    return model.eval(), record


def assert_equal_to_reference(name: str) -> None:
    """Entries in order, number of parameters, and logits; a difference names the backbone child where it starts."""
    model, record = build(name)
    assert sum(p.numel() for p in model.parameters()) == record["num_params"]
    seen: dict[str, torch.Tensor] = {}
    for child, module in model.backbone.named_children():
        module.register_forward_hook(lambda _, __, out, child=child: seen.setdefault(child, out))
    with torch.no_grad():
        logits = model(images(record["input_shape"]))
    for child, shape, mean, std in record["probes"]:
        out = seen.get(child)
        # an activation in place overwrites what the hook of the layer before it saw
        if not isinstance(out, torch.Tensor) or "bn" in child or "conv" in child:
            continue
        found = (out.double().mean().item(), out.double().std().item())
        assert list(out.shape) == shape, child
        assert np.allclose(found, (mean, std), rtol=1e-3), f"differs from {child} on: {found} for {(mean, std)}"
    assert_close(logits, np.load(FOLDER / f"{name}.npz")["logits"], 50 * record["fp32_vs_fp64_max_rel_err"])


def assert_close(found: torch.Tensor, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    """Largest difference relative to the largest value, at least 1e-5: the logits grow with the depth."""
    assert found.shape == expected.shape
    error = np.abs(found.detach().numpy() - expected).max() / max(np.abs(expected).max(), 1e-12)
    assert error <= max(1e-5, tolerance), f"relative error {error:.1e} above {max(1e-5, tolerance):.1e}"
