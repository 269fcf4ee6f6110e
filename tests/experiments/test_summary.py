"""Summaries of runs, paired differences and the sentences computed from them."""

import dataclasses
import math

import numpy as np
import pytest
import sweeps

from experiments.report import summary
from experiments.report.findings import findings
from experiments.report.numbers import joined, number
from pe_research import positions


def test_schemes_come_in_registry_order_with_their_seeds_in_order(tmp_path):
  names = list(positions.SCHEMES)
  runs = sweeps.runs(tmp_path, seeds=(2, 0, 1), names=names[::-1])
  schemes = summary.schemes(runs)
  assert [scheme.key for scheme in schemes] == names
  assert [scheme.label for scheme in schemes] == [s.label for s in positions.SCHEMES.values()]
  assert [scheme.style for scheme in schemes] == list(range(len(names)))
  assert all([run.record['seed'] for run in scheme.runs] == [0, 1, 2] for scheme in schemes)


def test_a_scheme_keeps_its_style_whatever_it_is_compared_with(tmp_path):
  alone = summary.schemes([sweeps.run(tmp_path, 'alibi')])[0]
  assert alone.style == list(positions.SCHEMES).index('alibi')


def test_variants_of_a_scheme_are_lines_of_their_own(tmp_path):
  runs = [sweeps.run(tmp_path, 'nope')]
  runs += [sweeps.run(tmp_path / f'{b}', 'alibi', position={'max_bias': b}) for b in (8.0, 4.0)]
  nope, first, second = summary.schemes(runs)
  assert (nope.label, first.label, second.label) == (
    'NoPE', 'ALiBi (max_bias=8.0)', 'ALiBi (max_bias=4.0)',
  )  # fmt: skip
  assert first.key != second.key and first.style != second.style
  assert second.style >= len(positions.SCHEMES)
  assert len(first.runs) == len(second.runs) == 1


def test_training_lengths_are_told_apart(tmp_path):
  runs = [sweeps.run(tmp_path, 'alibi'), sweeps.run(tmp_path / 'long', 'alibi', train_length=512)]
  runs.append(sweeps.run(tmp_path, 'rope'))
  labels = [scheme.label for scheme in summary.schemes(runs)]
  assert labels == ['RoPE (trained at 64)', 'ALiBi (trained at 64)', 'ALiBi (trained at 512)']
  section = summary.sections(runs)[0]
  assert section.train_lengths == [64, 512]
  assert [section.reference(scheme) for scheme in section.schemes] == [64, 64, 512]


def test_one_seed_twice_is_refused(tmp_path):
  runs = [sweeps.run(tmp_path, 'rope'), sweeps.run(tmp_path / 'again', 'rope')]
  with pytest.raises(ValueError, match=r'rope_seed0 and .*again/rope_seed0 are the same scheme'):
    summary.schemes(runs)


def test_only_rows_of_the_last_step_count(tmp_path):
  run = sweeps.run(tmp_path, 'rope')
  early = [row | {'step': 500, 'bits_per_byte': 99.0} for row in run.rows]
  (section,) = summary.sections([dataclasses.replace(run, rows=run.rows + early)])
  assert section.mean(section.schemes[0], 64) == run.rows[0]['bits_per_byte']
  with pytest.raises(ValueError, match=r'rope_seed0 and the others hold no results'):
    summary.sections([dataclasses.replace(run, rows=early)])


def test_sections_come_in_the_order_of_configs(tmp_path):
  measured = [('sliding', 'none'), ('fixed_targets', 'shuffled'), ('fixed_targets', 'cropped')]
  found = summary.sections([sweeps.run(tmp_path, 'rope', measures=measured)])
  assert [(s.protocol, s.control) for s in found] == [
    ('fixed_targets', 'none'),
    ('fixed_targets', 'cropped'),
    ('fixed_targets', 'shuffled'),
    ('sliding', 'none'),
  ]


def test_the_reference_is_the_training_length_or_the_nearest_measured():
  for lengths, want in (((32, 64, 128), 64), ((32, 128), 32), ((128, 256), 128)):
    section = sweeps.section({'a': dict.fromkeys(lengths, 2.0)})
    assert section.reference(section.schemes[0]) == want


def test_a_change_pairs_seeds():
  section = sweeps.section({'a': {64: [2.0, 3.0], 128: [2.1, 3.3]}})
  assert section.changes(section.schemes[0], 128) == pytest.approx([0.1, 0.3])


@pytest.mark.parametrize(
  'losses, want',
  [
    ((2.0, 2.05, 2.0, 1.9), 512),
    ((2.0, 2.06, 2.0, 1.9), 64),
    ((2.0, 2.04, 2.2, 2.0), 128),
    ((2.0, 1.0, None, None), 128),
    ((2.0, 2.0, math.nan, 2.0), 128),
    ((2.0, math.inf, 2.0, 2.0), 64),
  ],
)
def test_how_far_a_loss_is_kept(losses, want):
  section = sweeps.section({'a': dict(zip((64, 128, 256, 512), losses, strict=True))})
  assert section.kept(section.schemes[0]) == want


def paired(section, length=4096):
  one, other = section.schemes
  return summary.paired(section, one, other, length)


def test_a_paired_difference_is_that_of_the_means(tmp_path):
  section = summary.sections(sweeps.runs(tmp_path, (0, 1), names=('rope', 'alibi')))[0]
  found, (rope, alibi) = paired(section), section.schemes
  assert found.difference == pytest.approx(section.mean(rope, 4096) - section.mean(alibi, 4096))
  assert found.documents == sweeps.DOCUMENTS
  assert found == paired(section)


def test_the_interval_covers_the_truth_as_often_as_it_says():
  draw, covered, trials = np.random.default_rng(1), 0, 200
  section = sweeps.section({'a': {64: 2.0}, 'b': {64: 1.5}}, documents=30)
  for _ in range(trials):
    row = section.rows['a', 64][0]
    hard = draw.normal(0, 1, 30)  # shared by both: pairing must take it out
    for name, loss in (('a', 0.5), ('b', 0.0)):
      nats = 2 + loss + hard + draw.normal(0, 0.2, 30)
      documents = {f'd{i}': [x * 8, 8] for i, x in enumerate(nats)}
      section.rows[name, 64] = [row | {'documents': documents}]
    low, high = paired(section, 64).interval
    assert high - low < 0.5  # 1.5 if they were not paired
    covered += low <= 0.5 / math.log(2) <= high
  assert 0.88 <= covered / trials <= 0.99


def test_documents_weigh_by_their_tokens():
  section = sweeps.section({'a': {64: 2.0}, 'b': {64: 1.0}}, documents=6)
  for name, nats in (('a', 3.0), ('b', 1.0)):
    row = section.rows[name, 64][0]
    documents = row['documents'] | {'d0': [nats * 800, 800]}
    section.rows[name, 64] = [row | {'documents': documents, 'tokens': 840, 'bytes': 420}]
  want = (800 * 2 + 40 * math.log(2)) / 840 / math.log(2) * 2
  assert paired(section, 64).difference == pytest.approx(want)


def test_there_is_no_difference_of_other_targets_or_without_a_value():
  section = sweeps.section({'a': {64: 2.0, 128: None}, 'b': {64: 1.0, 128: 1.0}})
  assert paired(section, 128) is None
  assert paired(section, 999) is None
  sums = section.rows['a', 64][0]['documents']
  sums['d0'][1] += 1
  assert paired(section, 64) is None
  few = sweeps.section({'a': {64: 2.0}, 'b': {64: 1.0}}, documents=summary.FEWEST_DOCUMENTS - 1)
  assert paired(few, 64).interval is None and paired(few, 64).difference == pytest.approx(1)


def test_findings_say_who_keeps_their_loss_and_who_does_not():
  section = sweeps.section({
    'flat': {64: 2.4, 128: 2.38, 256: 2.41},
    'late': {64: 2.3, 128: 2.32, 256: 2.9},
    'soon': {64: 2.5, 128: 3.5, 256: 6.0},
    'ends': {64: 2.35, 128: None, 256: None},
  })  # fmt: skip
  assert findings(section) == [
    'At the training length, 64 tokens, losses lie between 2.300 (LATE) and 2.500 (SOON) '
    'bits/byte, 0.200 apart.',
    'Up to 256 tokens, 4 times the training length, the loss of FLAT never rises by more than '
    '0.05 bits/byte over that at the training length; the change at 256 tokens: FLAT +0.010.',
    'LATE stays within 0.05 bits/byte up to 128 tokens (+0.600).',
    'SOON is more than 0.05 bits/byte worse at 128 tokens already, and at 256 tokens its change '
    'is +3.500 bits/byte.',
    'ENDS has no value past 64 tokens (no such position).',
    'At 256 tokens FLAT is lowest with 2.410 bits/byte.',
    'On the same documents these are higher, with 95 % intervals over documents: LATE by 0.490 '
    '(0.490 to 0.490) and SOON by 3.590 (3.590 to 3.590).',
    'With one seed, nothing here says how much another seed would change.',
  ]


def test_findings_say_what_cannot_be_told_apart():
  section = sweeps.section({'a': {64: 2.4, 128: 2.4}, 'b': {64: 2.4, 128: 2.401}})
  row, draw = section.rows['b', 128][0], np.random.default_rng(0)
  for total in row['documents'].values():
    total[0] += draw.normal(0, 1)
  text = ' '.join(findings(section))
  assert 'cannot be told from it, as their intervals reach zero: B by' in text
  assert 'these are higher' not in text


@pytest.mark.parametrize('worst', [math.nan, math.inf])
def test_findings_survive_what_is_not_finite(worst):
  section = sweeps.section({'a': {64: 2.4, 128: 2.4}, 'b': {64: 2.4, 128: worst}})
  text = ' '.join(findings(section))
  assert 'At 128 tokens A is lowest' in text
  assert 'B is more than 0.05 bits/byte worse at 128 tokens already (not finite)' in text
  assert not any(word in text for word in ('nan', 'inf '))


def test_findings_speak_of_seeds():
  losses = {'a': {64: [2.0, 2.2], 128: [2.0, 2.5]}, 'b': {64: [2.0, 2.1], 128: [2.0, 2.1]}}
  last = findings(sweeps.section(losses))[-1]
  assert last == (
    'Over 2 seeds, the largest spread from lowest to highest seed is 0.500 bits/byte '
    '(A at 128 tokens).'
  )
  losses['b'] = {64: [2.0], 128: [2.0]}
  assert 'Not every scheme was run with every seed' in findings(sweeps.section(losses))[-2]


@pytest.mark.parametrize(
  'losses',
  [{'a': {64: 2.0}}, {'a': {64: None}}, {'a': {64: None}, 'b': {64: 2.0}}, {'a': {128: 2.0}},
   {'a': {64: 2.0, 128: None}}, {'a': {64: None, 128: 2.0}}, {'a': {64: math.nan}}],
)  # fmt: skip
def test_findings_of_little_are_little(losses):
  assert all(text.endswith('.') for text in findings(sweeps.section(losses)))


def test_words():
  assert [joined('abc'[:n]) for n in (1, 2, 3)] == ['a', 'a and b', 'a, b and c']
  assert number(-0.0004, signed=True) == '0.000' and number(-1.5) == '−1.500'
  assert number(2.0, signed=True) == '+2.000' and number(math.nan) == 'not finite'
