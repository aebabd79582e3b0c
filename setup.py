"""Shim for tools that still look for it; the metadata stands in pyproject.toml."""

from setuptools import setup

setup()
