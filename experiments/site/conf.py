"""How Sphinx builds the pages; a copy lies beside them, which Sphinx executes."""

import inspect

from docutils import nodes
from flax import nnx
from sphinx.util.inspect import stringify_signature

from experiments.site import docstrings

project = 'pe_research'
html_title = project
extensions = [
  'myst_parser',
  'sphinx.ext.autodoc',
  'sphinx.ext.napoleon',
  'sphinx.ext.viewcode',
]
html_theme = 'furo'
html_static_path = ['_static']
html_css_files = ['site.css']
html_extra_path = ['_extra']
exclude_patterns = ['_extra', '_static']
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
default_role = 'code'
smartquotes = False  # '--flag' is no dash
myst_enable_extensions = ['attrs_block']
myst_heading_anchors = 3
autoclass_content = 'both'
autodoc_member_order = 'bysource'
autodoc_default_options = {
  'members': True,
  'show-inheritance': True,
  'ignore-module-all': True,  # what a module takes from another is on the page of that one
}
napoleon_use_ivar = True  # attributes of a class are described once, in its docstring
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True


def _document(app, what, name, obj, options, lines):
  """As reStructuredText, before napoleon, which is connected at 500."""
  lines[:] = docstrings.rst(lines)


def _signature(app, what, name, obj, options, signature, returns):
  """Of a class of NNX, whose metaclass hides what its constructor takes."""
  if what != 'class' or not issubclass(obj, nnx.Module):
    return None
  parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
  return stringify_signature(inspect.Signature(parameters), unqualified_typehints=True), ''


def _dashes(app, doctree, page):
  """Between a parameter and what it means, where Sphinx leaves them to its smart quotes."""
  for text in list(doctree.findall(nodes.Text)):
    if text == ' -- ':
      text.parent.replace(text, nodes.Text(' – '))


def setup(app):
  """Connects the above."""
  app.connect('autodoc-process-docstring', _document, priority=400)
  app.connect('autodoc-process-signature', _signature)
  app.connect('doctree-resolved', _dashes)
