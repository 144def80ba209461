"""Resize filters: their names in recipes and their codes in compiled functions.

bilinear: antialiased, as Pillow and torchvision. bicubic: antialiased with Keys' cubic, a = -0.5; on the CPU
bit-identical to Pillow. ffcv_area: OpenCV's INTER_AREA, through FFCV.
"""

from typing import Literal

Interpolation = Literal["bilinear", "bicubic", "ffcv_area"]

BILINEAR, BICUBIC, FFCV_AREA = range(3)
CODES: dict[Interpolation, int] = {"bilinear": BILINEAR, "bicubic": BICUBIC, "ffcv_area": FFCV_AREA}
