"""Kintsugi breaks AI workflow runtimes on purpose, and scores how they mend."""

__version__ = "0.1.0"
