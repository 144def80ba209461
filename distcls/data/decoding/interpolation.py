"""How a window becomes the output: the names in recipes, and the numbers by which compiled code knows them.

bilinear: antialiased, Pillow's and torchvision's. bicubic: the same with Keys' cubic, a = -0.5; Pillow's to the bit.
ffcv_area: OpenCV's INTER_AREA, by FFCV.
"""

from typing import Literal

Interpolation = Literal["bilinear", "bicubic", "ffcv_area"]

BILINEAR, BICUBIC, FFCV_AREA = range(3)
CODES: dict[Interpolation, int] = {"bilinear": BILINEAR, "bicubic": BICUBIC, "ffcv_area": FFCV_AREA}
