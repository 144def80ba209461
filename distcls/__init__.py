"""distcls: image classifiers trained from one YAML recipe on many GPUs, with exact resume."""

__version__ = "0.1.0"
