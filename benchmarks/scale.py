"""Memory and time of index and sampling order for many samples and ranks, and shuffling quality of blocks.

    python benchmarks/scale.py [--samples 100000000 1000000000] [--ranks 1024] [--only-memory]

Costs are measured in a fresh process for one rank: the increase in private memory (RssAnon), and the peak. Writes
benchmarks/results/scale.json and prints the tables of docs/data.md.
"""

import argparse
import json
import multiprocessing
import platform
import tempfile
import time
from pathlib import Path

import numpy as np

from distcls.data.beton import file_format
from distcls.data.beton.sidecar import Sidecar, Sizes, fingerprint_of, sidecar_path
from distcls.data.dataset import BetonDataset
from distcls.data.sampling.block_order import BlockOrder
from distcls.data.sampling.order import GlobalOrder

RESULT = Path(__file__).parent / "results" / "scale.json"
BLOCKS = {"block_size": 16, "window": 8}


def memory(what="RssAnon"):
    """Memory of this process in bytes: a field of /proc/self/status."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(lines[what].split()[0]) * 1024


def apart(function, *arguments):
    """Run function(*arguments) in a fresh process and measure its seconds and memory, final and at the peak."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (function, arguments))


def measured(function, arguments):
    private, resident = memory(), memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak (VmHWM)
    start = time.perf_counter()
    kept, found = function(*arguments)
    seconds = time.perf_counter() - start
    found |= {"seconds": seconds, "bytes": memory() - private, "peak": memory("VmHWM") - resident}
    del kept
    return found


def synthetic(path, samples):
    """Write a .beton of one-pixel images, with its sidecar."""
    kind = np.dtype([("", file_format._IMAGE), ("", "<i8")], align=True)
    records = np.zeros(samples, kind)
    records_at = file_format._HEADER.itemsize + 2 * file_format._FIELD.itemsize
    data_at = records_at + records.nbytes
    pointers = data_at + 3 * np.arange(samples, dtype=np.uint64)
    for name, value in (("mode", 1), ("width", 1), ("height", 1), ("data_ptr", pointers)):
        records["f0"][name] = value
    records["f1"] = np.arange(samples) % 1000
    allocations = np.zeros(samples, file_format._ALLOCATION)
    allocations["sample"], allocations["ptr"], allocations["size"] = np.arange(samples), pointers, 3
    header = np.array([(2, 2, 1 << 21, samples, data_at + 3 * samples)], file_format._HEADER)
    fields = np.zeros(2, file_format._FIELD)
    fields["type"] = 2, 1
    with path.open("wb") as file:
        for part in (header, fields, records, np.zeros(3 * samples, np.uint8), allocations):
            file.write(part.tobytes())
    file, table = file_format.read_samples(path)
    sidecar = Sidecar(
        fingerprint=fingerprint_of(file, data_at),
        samples=samples,
        class_names=[f"class {number}" for number in range(1000)],
        class_counts=np.bincount(table["label"], minlength=1000).tolist(),
        mean=[0.5] * 3,
        std=[0.2] * 3,
        sizes=Sizes.of(table),
        bytes=len(file),
        jpeg_samples=0,
        write={},
        source={},
        versions={},
    )
    sidecar_path(path).write_text(sidecar.model_dump_json())


def opened(path, sampler):
    """Open a data set and compute the first batch's part of one of 8 ranks, which builds the order."""
    dataset = BetonDataset(path)
    blocks = BlockOrder(len(dataset), 1024, 1, **BLOCKS) if sampler == "block_shuffle" else None
    balance = dataset.samples["label"] if sampler == "balanced" else None
    order = GlobalOrder(len(dataset), 1024, 1, balance, blocks=blocks) if sampler != "none" else None
    if order:
        order.part(5, 3, 8)
    return (dataset, order), {"samples": len(dataset)}


def first_batch(samples, ranks, batch, blocks):
    """Time one rank's part of a step in mid-epoch, where a resumed run may start, and of the step after it."""
    order = GlobalOrder(samples, batch, 1, blocks=BlockOrder(samples, batch, 1, **BLOCKS) if blocks else None)
    found = {}
    for name, step in (("begin", order.steps_per_epoch // 2), ("step", order.steps_per_epoch // 2 + 1)):
        start = time.perf_counter()
        order.part(step, ranks // 2, ranks)
        found[name] = time.perf_counter() - start
    return order, found


def disjoint(samples, ranks, batch):
    """Check for some steps that the ranks' parts are disjoint and together form the global batch."""
    order = GlobalOrder(samples, batch, 1, blocks=BlockOrder(samples, batch, 1, **BLOCKS))
    for step in (0, order.steps_per_epoch // 3, order.steps_per_epoch - 1):
        parts = [order.part(step, rank, ranks).indices for rank in range(ranks)]
        whole = order.part(step, 0, 1).indices
        assert np.array_equal(np.concatenate(parts), whole)
        assert len(np.unique(whole)) == batch
        assert whole.min() >= 0
        assert whole.max() < samples
    return True


def quality(samples, batch, classes, **blocks):
    """Statistics of class counts per batch, on data sorted by class; without `blocks`, of a full shuffle."""
    steps = samples // batch
    order = GlobalOrder(samples, batch, 1, blocks=BlockOrder(samples, batch, 1, **blocks) if blocks else None)
    of_class = np.arange(samples) * classes // samples
    counts = np.stack(
        [np.bincount(of_class[order.part(step, 0, 1).indices], minlength=classes) for step in range(steps)]
    )
    centred = counts - counts.mean()
    lag = {n: float((centred[:-n] * centred[n:]).mean() / centred.var()) for n in (1, 8, 32, 128)}
    runs = counts[: steps // 32 * 32].reshape(-1, 32, classes).sum(1)
    return {"variance": float(counts.var() / counts.mean()), "lag": lag, "of 32": float(runs.var() / runs.mean())}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, nargs="*", default=[100_000_000, 1_000_000_000])
    parser.add_argument("--ranks", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=32768)
    parser.add_argument("--only-memory", action="store_true", help="the other results stay what they were")
    options = parser.parse_args()
    result = {"machine": platform.processor() or platform.machine(), "numpy": np.__version__, "ranks": options.ranks}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "millions.beton"
        synthetic(path, 4_000_000)
        samplers = ("none", "shuffle", "balanced", "block_shuffle")
        result["memory"] = {sampler: apart(opened, path, sampler) for sampler in samplers}
    if options.only_memory:
        RESULT.write_text(json.dumps({**json.loads(RESULT.read_text()), **result}, indent=1) + "\n")
        memory_table(result)
        return
    result["orders"] = {
        f"{samples} {'block_shuffle' if blocks else 'shuffle'}": apart(
            first_batch, samples, options.ranks, options.batch, blocks
        )
        for samples in options.samples
        for blocks in (True, False)
    }
    result["disjoint"] = {samples: disjoint(samples, options.ranks, options.batch) for samples in options.samples}
    shapes = [{}, *({"block_size": size, "window": window} for size, window in ((16, 8), (8, 16), (32, 4), (128, 1)))]
    result["quality"] = [{**shape, **quality(1_281_167, 1024, 1000, **shape)} for shape in shapes]
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    tables(result, options)


def memory_table(result):
    """Print memory per million samples."""
    print("| sampler | private memory | at its peak, with the file's pages that are mapped |\n|---|---:|---:|")
    for sampler, row in result["memory"].items():
        kept, peak = (row[key] / row["samples"] for key in ("bytes", "peak"))
        print(f"| {sampler} | {kept:.1f} MB | {peak:.1f} MB |")


def tables(result, options):
    memory_table(result)
    head = (
        f"samples, sampler | order per rank | at its peak | to begin anywhere, one of {options.ranks} ranks | each step"
    )
    print(f"| {head} |\n|---|---:|---:|---:|---:|")
    for name, row in result["orders"].items():
        cells = [f"{row[key] / 1e6:,.0f} MB" for key in ("bytes", "peak")]
        cells += [f"{row[key]:.4f} s" for key in ("begin", "step")]
        print(f"| {name} | {' | '.join(cells)} |")
    head = "block_size x block_window | variance of a batch's class counts | of 32 batches' | correlation after 1 step"
    print(f"\n| {head} | 8 | 32 | 128 |\n|---|---:|---:|---:|---:|---:|---:|")
    for row in result["quality"]:
        shape = f"{row['block_size']} x {row['window']}" if "block_size" in row else "full shuffle"
        lags = " | ".join(f"{row['lag'][n]:.3f}" for n in (1, 8, 32, 128))
        print(f"| {shape} | {row['variance']:.3f} | {row['of 32']:.3f} | {lags} |")


if __name__ == "__main__":
    main()
