"""The claims with their verdicts: a page, Markdown and a picture, from what is kept of them."""

import pathlib

from experiments.report.claims import markdown, page, picture
from experiments.report.claims.rows import judge, load
from experiments.studies.scales import Scale
from pe_research.show import drawing
from pe_research.storage import files


def write(
  scale: Scale, folder: pathlib.Path, kept: pathlib.Path | None = None
) -> list[pathlib.Path]:
  """Writes RESULTS.md, claims.png and claims.html; the same rows, the same bytes.

  Args:
    scale: of the runs.
    folder: where the page goes.
    kept: where the other two go; None: beside the page.
  """
  findings, notes = load(scale)
  made = judge(findings)
  contents = {
    (kept or folder) / 'RESULTS.md': markdown.text(scale, made, notes).encode(),
    folder / 'claims.html': page.text(scale, made, notes).encode(),
    (kept or folder) / 'claims.png': drawing.png(picture.table(made), picture.text(made)),
  }
  for path, content in contents.items():
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, content)
  return [*contents]


def html(scale: Scale, explorer: str = '') -> str:
  """The page alone; `explorer` is a link to that of the schemes."""
  findings, notes = load(scale)
  return page.text(scale, judge(findings), notes, explorer)
