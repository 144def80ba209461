"""The version of distcls, which every layer may know; setup.cfg reads it from here."""

__version__ = "0.1.0"
