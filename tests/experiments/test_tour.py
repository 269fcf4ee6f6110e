"""The tour, executed at a tiny size."""

import base64
import io
import pathlib
import re

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

TOUR = pathlib.Path(__file__).parents[2] / 'experiments' / 'tour.ipynb'
TINY = """CONFIG = 'configs/smoke.py'
WORKDIR = {!r}
LENGTHS = (64, 128)"""


@pytest.fixture(scope='module')
def executed(tmp_path_factory):
  """The notebook run from its own folder, as Jupyter does, with the cell of sizes replaced."""
  notebook = nbformat.read(TOUR, as_version=4)
  (sizes,) = [cell for cell in notebook.cells if 'parameters' in cell.metadata.get('tags', ())]
  sizes.source = TINY.format(str(tmp_path_factory.mktemp('tour')))
  where = {'metadata': {'path': str(TOUR.parent)}}
  return nbclient.NotebookClient(notebook, timeout=600, resources=where).execute()


@pytest.mark.slow
def test_the_tour_draws_what_it_promises(executed):
  drawn = [
    Image.open(io.BytesIO(base64.b64decode(output.data['image/png'])))
    for cell in executed.cells
    for output in cell.get('outputs', ())
    if 'image/png' in output.get('data', {})
  ]
  assert len(drawn) == 4
  for image in drawn:
    assert min(image.size) > 150 and np.asarray(image.convert('L')).std() > 5


@pytest.mark.slow
def test_the_tour_reads_a_card(executed):
  said = ''.join(
    output.get('text', '') for cell in executed.cells for output in cell.get('outputs', ())
  )
  assert re.search(r'^stretches weights trained as +rope$', said, re.MULTILINE)
  assert re.search(r'^factor +2 ×$', said, re.MULTILINE)


def test_the_kept_notebook_was_run_in_order():
  code = [cell for cell in nbformat.read(TOUR, as_version=4).cells if cell.cell_type == 'code']
  assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
  assert not any(output.output_type == 'error' for cell in code for output in cell.outputs)
