from distcls.tracking.redact import redact, redact_text

ENVIRON = {"HF_TOKEN": "hf_0123456789", "PATH": "/usr/bin", "SHORT_TOKEN": "abc"}


def test_strings_under_secret_names_and_only_those():
    recipe = {
        "model": {"backbone": {"with_cls_token": True, "num_tokens": 3, "pool": "token"}},
        "tracking": {"api_key": "0123", "password": "x", "notes": "abc"},
    }
    assert redact(recipe, ENVIRON) == {
        "model": {"backbone": {"with_cls_token": True, "num_tokens": 3, "pool": "token"}},
        "tracking": {"api_key": "[redacted]", "password": "[redacted]", "notes": "abc"},
    }


def test_command_lines():
    argv = ["train.py", "r.yaml", "optimizer.lr=0.5", "tracking.api_key=0123", "--hub-token", "xyz", "--tokens", "3"]
    assert redact(argv, ENVIRON) == [
        *("train.py", "r.yaml", "optimizer.lr=0.5", "tracking.api_key=[redacted]"),
        *("--hub-token", "[redacted]", "--tokens", "3"),
    ]


def test_values_of_secret_variables_and_passwords_in_urls():
    text = "401 for hf_0123456789 at https://me:pw@example.org/x, see /usr/bin"
    assert redact(text, ENVIRON) == "401 for [redacted] at https://[redacted]@example.org/x, see /usr/bin"


def test_of_two_secrets_that_begin_alike_nothing_stays():
    environ = {"A_TOKEN": "abcdefgh", "B_TOKEN": "abcdefgh-and-more"}
    assert redact("with abcdefgh-and-more", environ) == "with [redacted]"


def test_names_with_dashes():
    assert redact(["--api-key=0123", "--private-key", "xyz"], {}) == [
        "--api-key=[redacted]",
        "--private-key",
        "[redacted]",
    ]
    assert redact_text("curl -H 'x-api-key: abcdefgh0123'", {}) == "curl -H 'x-api-key: [redacted]'"
