"""Docstrings as reStructuredText, which Sphinx reads."""

import re

# Headings that napoleon reads, each with a list below it.
SECTIONS = ('Args:', 'Attributes:', 'Raises:', 'Returns:', 'Yields:')
QUOTED = re.compile(r'(`[^`\n]+`)')
ENTRY = re.compile(r'( *)([\w/-]+): (.*)')


def inline(text: str) -> str:
  """Quoted text as code, everything else as it stands: no star or bar in it means anything."""
  parts = QUOTED.split(text)
  for i, part in enumerate(parts):
    escaped = re.sub(r'([\\*|`])|_(?!\w)', lambda found: '\\' + found[0], part)
    parts[i] = f'`{part}`' if i % 2 else escaped
  return ''.join(parts)


def rst(lines: list[str]) -> list[str]:
  """A dedented docstring for Sphinx.

  Lines that are indented below an empty one are commands; below a line of text, they are a list of
  'name: what it means'. Sections stay as they are.
  """
  made: list[str] = []
  kind = ''  # of the indented block that a line is in
  for number, line in enumerate(lines):
    indented, before = line.startswith(' '), lines[number - 1] if number else ''
    if not line.strip():
      made.append(line)
      continue
    if not indented:
      made += [''] if kind == 'list' and before.strip() else []
      kind = 'section' if line in SECTIONS else ''
    elif not kind:
      kind = 'list' if before.strip() else 'code'
      made += ['', *(['.. code-block:: text', ''] if kind == 'code' else [])]
    made.append(_line(line, kind))
  return made


def _line(line: str, kind: str) -> str:
  if kind == 'code':
    return line
  entry = ENTRY.fullmatch(line) if kind == 'list' else None
  if entry and len(entry[1]) == 2:
    return f'* ``{entry[2]}``: {inline(entry[3])}'
  return inline(line.removeprefix('  ')) if kind == 'list' else inline(line)
