"""What a GPU's matrix units can do at most: the denominator of model FLOPs utilisation (MFU)."""

import re

# Dense TFLOP/s (without sparsity) of fp16 and bf16 with fp32 sums, and of TF32, by words of torch's device name: whole
# ones, as an RTX A1000 is no A100. Source: NVIDIA's data sheets of each product (B200: of DGX B200, an eighth of it),
# AMD's of the MI300X. The first that fits counts, so longer names stand before shorter ones. V100 and T4 have no bf16
# and no TF32: there fp32 counts.
PEAKS: tuple[tuple[str, float | None, float | None, float], ...] = (
    # words of the name, fp16, bf16, what fp32 tensors are multiplied with
    ("B200", 2250.0, 2250.0, 1125.0),
    ("GH200", 989.4, 989.4, 494.7),
    ("H200 NVL", 835.5, 835.5, 417.5),
    ("H200", 989.4, 989.4, 494.7),
    ("H100 PCIe", 756.0, 756.0, 378.0),
    ("H100 NVL", 835.0, 835.0, 417.5),
    ("H100", 989.4, 989.4, 494.7),
    ("A100", 312.0, 312.0, 156.0),
    ("A40", 149.7, 149.7, 74.8),
    ("A30", 165.0, 165.0, 82.0),
    ("A10G", 70.0, 70.0, 35.0),
    ("A10", 125.0, 125.0, 62.5),
    ("L40S", 362.0, 362.0, 183.0),
    ("L40", 181.0, 181.0, 90.5),
    ("L4", 121.0, 121.0, 60.0),
    ("RTX 4090", 165.2, 165.2, 82.6),
    ("RTX 3090", 71.0, 71.0, 35.6),
    ("V100", 125.0, None, 15.7),
    ("T4", 65.0, None, 8.1),
    ("MI300X", 1307.4, 1307.4, 653.7),
)
# Slices of a GPU, and laptops' GPUs of the same name, do less.
OTHERS = re.compile(r"\b(MIG|Laptop)\b")


def peak_flops(device_name: str, precision: str) -> float | None:
    """FLOP/s of `torch.cuda.get_device_name()` in a `train.precision`; None where the table has no such device.

    fp32 counts TF32: what cuDNN's convolutions take unless told otherwise.
    """
    for words, fp16, bf16, fp32 in PEAKS:
        if re.search(rf"\b{words}\b", device_name) and not OTHERS.search(device_name):
            peak = {"fp16": fp16, "bf16": bf16, "fp32": fp32}.get(precision)
            return None if peak is None else 1e12 * peak
    return None
