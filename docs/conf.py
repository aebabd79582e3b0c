"""Sphinx's configuration."""

from __future__ import annotations

import bakthat

project = "bakthat"
author = "the bakthat authors"
copyright = "2026, the bakthat authors"  # the name that Sphinx asks for
release = bakthat.__version__
extensions = ["sphinx.ext.autodoc", "sphinx_copybutton", "sphinx_design"]
exclude_patterns = ["_build"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
# The button of a session copies its commands, and neither the prompts nor what they print.
copybutton_prompt_text = r"[\w-]*\$ "  # some prompts name a machine
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"
copybutton_here_doc_delimiter = "EOF"

# A literal block is text: some are commands, some are YAML, some are what a command prints.
highlight_language = "text"

html_theme = "furo"
html_title = f"bakthat {release}"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["pictures.css", "pages.css"]
