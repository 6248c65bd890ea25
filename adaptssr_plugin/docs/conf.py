"""The pages of adaptssr-plugin: ``sphinx-build -W -b html adaptssr_plugin/docs FOLDER`` (extra ``docs``)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # of pages.py, which is no part of the package

from adaptssr_plugin import __version__

project = "adaptssr-plugin"
author = "the adaptssr-plugin developers"
release = version = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser", "pages"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# What the docstrings say of types stands in the signatures already.
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_use_ivar = True  # attributes are described once, in the text of their class
napoleon_attr_annotations = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"adaptssr-plugin {__version__}"
html_math_renderer = "mathml"  # of pages.py: no script, and nothing from another server
html_copy_source = False
