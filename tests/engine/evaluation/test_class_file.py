"""val_per_class.json."""

import json

import pytest

from distcls.engine.evaluation.class_file import encoded


def test_a_line_for_each_class_and_each_row_of_the_matrix():
    content = {
        "step": 3,
        "loss": 0.5,
        "classes": [{"name": "cat", "support": 2}, {"name": "dög", "support": 1}],
        "confusion": [[2, 0], [1, 0]],
    }
    text = encoded(content)
    assert json.loads(text) == content
    assert b'\n{"name":"cat","support":2},\n' in text
    assert b"\n[2,0],\n[1,0]\n]" in text


def test_a_loss_that_is_not_finite_is_a_word():
    assert json.loads(encoded({"loss": float("nan")}), parse_constant=pytest.fail) == {"loss": "NaN"}
