"""The claims with their verdicts: a page, Markdown and a picture, from what is kept of them."""

import pathlib

from experiments.report.claims import markdown, page, picture
from experiments.report.claims.rows import judge, load
from experiments.studies.scales import Scale
from pe_research.show import drawing
from pe_research.storage import files


def write(scale: Scale, folder: pathlib.Path) -> list[pathlib.Path]:
  """Writes RESULTS.md, claims.html and claims.png into `folder`; the same rows, the same bytes."""
  findings, notes = load(scale)
  made, explored = judge(findings), (folder / 'explorer.html').exists()
  contents = {
    'RESULTS.md': markdown.text(scale, made, notes).encode(),
    'claims.html': page.text(scale, made, notes, explored).encode(),
    'claims.png': drawing.png(picture.table(made), picture.text(made)),
  }
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in contents.items():
    files.write_bytes(folder / name, content)
  return [folder / name for name in contents]
