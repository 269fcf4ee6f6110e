"""The page, the table and the files say what the rows of the runs say."""

import dataclasses
import html
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import markupsafe
import numpy as np
import pytest
import sweeps

from experiments.report import __main__ as report_command
from experiments.report import page, summary, tables, writer
from experiments.studies import comparability
from pe_research import positions
from pe_research.data import texts, tokenizers
from pe_research.evaluation import measures
from pe_research.settings import configs
from pe_research.storage import files

CROPPED = [('fixed_targets', 'cropped')]
SVG = '{http://www.w3.org/2000/svg}'


@pytest.fixture(scope='module', params=[(0,), (0, 1, 2)], ids=['one seed', 'three seeds'])
def written(request, tmp_path_factory):
  """Runs of every scheme and the directory that their report was written into."""
  root = tmp_path_factory.mktemp('sweep')
  runs = sweeps.runs(root, request.param, measures=CROPPED)
  return runs, root, writer.write(runs, root)


@pytest.mark.parametrize('protocol', ['fixed_targets', 'sliding', 'non_overlapping'])
def test_synthetic_rows_have_the_format_of_measured_ones(protocol):
  documents = texts.Documents(['a'], np.zeros(400, np.uint8), np.array([0, 400]))
  corpus = texts.Corpus(None, None, documents, tokenizers.Bytes(), {})
  settings = {'windows': 2, 'targets': 4, 'tokens': 128, 'stride': 4, 'reach': 128}
  plan = measures.plan(
    corpus, {'eval': settings | {'protocols': [protocol]}, 'length': 64, 'data': {'task': ''}}
  )
  score = lambda windows, last=None: np.ones((len(windows), last or windows.shape[1] - 1))
  scheme = configs.scheme(
    {'position': {'name': 'learned', 'max_length': 64}, 'length': 64}
    | {'model': {'width': 8, 'heads': 2, 'head_dim': 4}}
  )
  for length, undefined in ((64, ''), (128, 'yes')):
    real = measures.measure(score, scheme, plan, corpus, protocol, 'none', length)
    made = sweeps.row('r', 'learned', length, 0, protocol=protocol, undefined=undefined)
    assert real.keys() <= made.keys()
    assert {k: type(v) for k, v in made.items() if k in real} == {
      k: type(v) for k, v in real.items()
    }
    evidence = {'program', 'own_program', 'inputs', 'arithmetic'} if not undefined else set()
    identity = sweeps.row('r', 'rope', 64, 0, undefined='x').keys() - {
      'protocol', 'control', 'eval_length', 'value', 'undefined', 'targets',
    }  # fmt: skip
    assert made.keys() - real.keys() == identity | evidence


def rows_of(runs, label, length, control='none'):
  names = [n for n, s in positions.SCHEMES.items() if s.label == label]
  keep = lambda r: r['scheme'] in names and r['eval_length'] == length and r['control'] == control
  return [row for run in runs for row in run.rows if keep(row)]


def tables_of(text):
  """Each table as (caption, column heads, {row head: cells}); a cell is an element."""
  for table in re.findall(r'<table.*?</table>', text, re.DOTALL):
    root = ET.fromstring(table.replace('<br>', '<br/>'))
    heads = [(th.text or '') for th in root.find('thead/tr')]
    rows = {''.join(tr.find('th').itertext()): tr.findall('td') for tr in root.find('tbody')}
    yield ''.join(root.find('caption').itertext()), heads, rows


def part(text, start, end='$'):
  return re.search(f'{start}(.*?){end}', text, re.DOTALL)[1]


@pytest.mark.parametrize('unit', ['bits_per_byte', 'value'])
@pytest.mark.parametrize('control', ['none', 'cropped'])
def test_every_loss_in_the_page_is_that_of_the_rows(written, unit, control):
  runs, root, _ = written
  whole = (root / 'report.html').read_text()
  text = part(whole, 'Loss by evaluation', '<h2>Fixed targets, cropped')
  if control == 'cropped':
    text = part(whole, '<h2>Fixed targets, cropped')
  ((_, heads, rows),) = [t for t in tables_of(text) if tables.UNITS[unit] + ' by' in t[0]]
  assert heads == ['Scheme', *map(str, sweeps.LENGTHS)]
  assert list(rows) == [scheme.label for scheme in positions.SCHEMES.values()]
  lowest = 0
  for label, cells in rows.items():
    for length, cell in zip(sweeps.LENGTHS, cells, strict=True):
      found = rows_of(runs, label, length, control)
      if found[0]['value'] is None:
        assert cell.get('title') == found[0]['undefined'] and '–' in ''.join(cell.itertext())
        continue
      values = [row[unit] for row in found]
      number = next(cell.iter('data'))
      assert float(number.get('value')) == pytest.approx(np.mean(values), rel=1e-12)
      assert number.text == f'{np.mean(values):.3f}'
      spread = cell.find('small')
      if len(values) > 1:
        assert spread.text == f'± {np.std(values, ddof=1):.3f}'
      assert (spread is not None) == (len(values) > 1)
      best = min(
        np.mean([row[unit] for row in rows_of(runs, other, length, control)])
        for other in rows
        if rows_of(runs, other, length, control)[0]['value'] is not None
      )
      assert (cell.find('strong') is not None) == (np.mean(values) == best)
      lowest += cell.find('strong') is not None
  assert lowest == len(sweeps.LENGTHS)


def test_every_change_in_the_page_is_that_of_the_rows(written):
  runs, root, _ = written
  _, _, rows = next(t for t in tables_of((root / 'report.html').read_text()) if 'Change' in t[0])
  for label, cells in rows.items():
    for length, cell in zip(sweeps.LENGTHS, cells, strict=True):
      now, then = (rows_of(runs, label, n) for n in (length, sweeps.TRAINED))
      if length == sweeps.TRAINED:
        assert cell.text == '0'
      elif now[0]['value'] is None:
        assert cell.get('title') == now[0]['undefined']
      else:
        change = np.mean(
          [a['bits_per_byte'] - b['bits_per_byte'] for a, b in zip(now, then, strict=True)]
        )
        assert float(cell.find('data').get('value')) == pytest.approx(change, abs=1e-12)
        assert cell.find('data').text == f'{change:+.3f}'.replace('-', '−')
        assert (cell.get('class') == 'worse') == (change > summary.TOLERANCE)


def test_every_number_in_the_terminal_is_that_of_the_rows(written):
  runs, _, _ = written
  shown = writer.table(runs).split('\n\n')
  assert [lines.split(':')[0] for lines in shown] == ['fixed_targets', 'fixed_targets (cropped)']
  for label, line in zip(
    [s.label for s in positions.SCHEMES.values()], shown[0].splitlines()[2:], strict=False
  ):
    want = []
    for length in sweeps.LENGTHS:
      values = [row.get('bits_per_byte') for row in rows_of(runs, label, length)]
      deviation = f' ± {np.std(values, ddof=1):.3f}' if len(values) > 1 and values[0] else ''
      want.append(f'{np.mean(values):.3f}{deviation}' if values[0] else '-')
    assert re.split(r'\s{2,}', line) == [label, *want]
  assert "from 128: 'Learned' holds 64 positions; asked for 128." in shown[0]


def test_the_page_needs_nothing_but_itself(written):
  _, root, _ = written
  for name in ('report.html', 'loss_by_length.svg'):
    text = (root / name).read_text()
    outside = re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', '', text)
    assert not re.search(r'https?:|//|<link|<script|<iframe|\bsrc=|@import|url\((?!#)', outside)


def test_ids_are_unique_and_references_resolve(written):
  _, root, _ = written
  text = (root / 'report.html').read_text()
  ids = re.findall(r'\bid="([^"]*)"', text)
  assert len(ids) == len(set(ids)) > 0
  used = re.findall(r'(?:url\(|href=")#([^)"]*)', text)
  assert used and set(used) <= set(ids)
  for svg in re.findall(r'<svg.*?</svg>', text, re.DOTALL):
    ET.fromstring(svg)
    assert not re.search('#[0-9a-f]{6}', svg), 'a colour that no colour scheme can change'


def test_labels_are_escaped(tmp_path, monkeypatch):
  label = '<b onclick="x()">&amp; \'q\'</b>'
  scheme = type('Odd', (positions.SCHEMES['rope'],), {'label': label})
  monkeypatch.setitem(positions.SCHEMES, 'odd', scheme)
  notes = ['<i>note</i>']
  runs = [sweeps.run(tmp_path, 'rope'), sweeps.run(tmp_path, 'odd', notes=notes)]
  writer.write(runs, tmp_path, ['<u>mark</u>'])
  text = (tmp_path / 'report.html').read_text()
  assert not re.search('<b |<b>|<i>|<u>', text)
  assert markupsafe.escape(label) in text and '&lt;i&gt;note' in text and '&lt;u&gt;mark' in text
  assert label in [t.text for t in ET.parse(tmp_path / 'loss_by_length.svg').iter(f'{SVG}text')]


def test_marks_come_first(written):
  runs, root, _ = written
  assert 'class="warning"' not in (root / 'report.html').read_text()
  marks = ['device (a -> b): cpu -> gpu', 'code (a -> c): 1 -> 2']
  text = page.page(runs, summary.sections(runs), marks)
  warning = part(text, '<section class="warning"', '</section>')
  assert all(mark in html.unescape(warning) for mark in marks)
  assert text.index('class="warning"') < text.index('What was compared') < text.index('<table')


def test_conditions_notes_and_runs_are_in_the_page(written):
  runs, root, _ = written
  text = (root / 'report.html').read_text()
  found = {caption.partition('.')[0]: rows for caption, _, rows in tables_of(text)}
  conditions = {k: ''.join(v[0].itertext()) for k, v in found['Every condition'].items()}
  for field, value in runs[0].record['conditions'].items():
    assert conditions[field] == str(value)
  assert conditions['working tree'] == 'clean'
  assert conditions['fingerprint'] == runs[0].record['fingerprint']
  assert conditions['batches, seed 0'] == runs[0].record['batches']
  assert f'T5 bias: {runs[3].record["notes"][0]}' in html.unescape(text)
  workdirs = re.findall(r'<td><code>(\w+_seed\d)</code>', text)
  assert sorted(workdirs) == sorted(run.workdir.name for run in runs)


def test_other_settings_at_some_lengths_are_said(tmp_path):
  runs = sweeps.runs(tmp_path)
  other = lambda row: row | ({'settings': 'o' * 64} if row['eval_length'] == 4096 else {})
  runs = [dataclasses.replace(run, rows=[other(row) for row in run.rows]) for run in runs]
  text = page.page(runs, summary.sections(runs), [])
  assert 'Values at 4096 tokens were measured with other settings' in text


def test_all_rows_are_in_one_file(written):
  runs, root, paths = written
  rows = files.read_rows(root / 'results.jsonl')
  assert rows == [row for run in runs for row in run.rows]
  assert sorted(paths) == sorted(path for path in root.iterdir() if path.is_file())


def test_the_same_runs_give_the_same_bytes(written, tmp_path):
  runs, _, paths = written
  for path, again in zip(paths, writer.write(runs, tmp_path), strict=True):
    assert path.read_bytes() == again.read_bytes(), path.name


def command(*arguments, **environment):
  line = [sys.executable, '-m', 'experiments.report', *map(str, arguments)]
  return subprocess.run(
    line, capture_output=True, text=True, check=False, env=os.environ | environment
  )


def test_the_command_reads_compares_and_writes(tmp_path):
  runs = [sweeps.run(tmp_path / 'runs', name) for name in ('rope', 'alibi', 'learned')]
  for run in runs:
    run.record['conditions']['device'] += f' {run.record["scheme"]}'
    sweeps.save(run)
  done = command(f'--workdir={tmp_path}', '--allow-different=device', PYTHONHASHSEED='1')
  assert done.returncode == 0, done.stderr
  ordered = sorted(runs, key=lambda run: run.workdir)
  assert done.stdout.startswith(writer.table(ordered))
  for path in writer.write(ordered, tmp_path / 'again', comparability.check(ordered, ['device'])):
    assert f'wrote {tmp_path / path.name}' in done.stdout
    assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_the_command_refuses_what_does_not_compare(tmp_path, capsys):
  with pytest.raises(SystemExit) as stopped:
    report_command.main([f'--workdir={tmp_path}'])
  assert stopped.value.code == 2 and 'runs holds no runs' in capsys.readouterr().err
  runs = [sweeps.run(tmp_path / 'runs', name) for name in ('rope', 'alibi')]
  runs[1].record['conditions']['device'] = 'gpu NVIDIA H100'
  for run in runs:
    sweeps.save(run)
  with pytest.raises(SystemExit) as stopped:
    report_command.main([f'--workdir={tmp_path}'])
  assert stopped.value.code == 2 and '--allow-different=device' in capsys.readouterr().err
  assert not (tmp_path / 'report.html').exists()
  report_command.main([f'--workdir={tmp_path}', '--allow-different=device'])
  text = (tmp_path / 'report.html').read_text()
  assert 'gpu NVIDIA H100' in part(text, '<section class="warning"', '</section>')
  named = sorted(str(run.workdir) for run in runs)
  report_command.main([*named, f'--workdir={tmp_path / "named"}', '--allow-different=device'])
  assert (tmp_path / 'named' / 'report.html').read_text() == text
