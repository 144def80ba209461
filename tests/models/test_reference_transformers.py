"""Vision transformers, Swin and ConvNeXt against MMPretrain: entries, parameters, logits."""

import pytest
from mmpretrain_reference import assert_equal_to_reference


@pytest.mark.parametrize("name", ["vit_base_p16", "deit_small", "swin_tiny", "convnext_tiny"])
def test_entries_and_logits(name: str) -> None:
    assert_equal_to_reference(name)
