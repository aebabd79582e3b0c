"""Sphinx's configuration."""

from __future__ import annotations

import bakthat

project = "bakthat"
author = "the bakthat authors"
copyright = "2026, the bakthat authors"  # the name that Sphinx asks for
release = bakthat.__version__
extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
