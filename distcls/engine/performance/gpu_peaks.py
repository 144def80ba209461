"""Peak FLOP/s of GPUs' matrix units: the denominator of model FLOPs utilisation (MFU)."""

import re

# Dense TFLOP/s (without sparsity) of fp16 and bf16 with fp32 accumulation, and of TF32, by whole words of torch's
# device name (an RTX A1000 is no A100). Sources: NVIDIA's data sheet of each product (B200: an eighth of DGX B200),
# AMD's of the MI300X. The first match counts, so longer names come first. V100 and T4 have neither bf16 nor TF32: for
# them the last column is fp32.
PEAKS: tuple[tuple[str, float | None, float | None, float], ...] = (
    # words of the name, fp16, bf16, TF32 (or fp32)
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
# Slices of a GPU, and laptop GPUs of the same name, are slower.
OTHERS = re.compile(r"\b(MIG|Laptop)\b")


def peak_flops(device_name: str, precision: str) -> float | None:
    """FLOP/s of `torch.cuda.get_device_name()` in a `train.precision`; None if the device is not in the table.

    For fp32 this is the peak of TF32, which cuDNN's convolutions use by default.
    """
    for words, fp16, bf16, fp32 in PEAKS:
        if re.search(rf"\b{words}\b", device_name) and not OTHERS.search(device_name):
            peak = {"fp16": fp16, "bf16": bf16, "fp32": fp32}.get(precision)
            return None if peak is None else 1e12 * peak
    return None
