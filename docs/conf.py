"""Sphinx's configuration."""

project = "django-asherah"
author = "The django-asherah founders"
copyright = "2026, The django-asherah founders"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "django-asherah"
myst_enable_extensions = ["attrs_block", "colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
