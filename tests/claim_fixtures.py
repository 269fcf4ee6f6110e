"""A scale of runs that take seconds, and claims to be made of it."""

import pathlib

import run_fixtures

from experiments.studies.scales import Scale
from experiments.studies.terms import Claim, Expect, Model, Published, found, nll


def scale(corpus: pathlib.Path, **fields) -> Scale:
  """Trained at 16 tokens of a corpus of the tests."""
  return Scale(
    'toy',
    length=16,
    seeds=3,
    task_size=4,
    fields={
      **run_fixtures.SIZES,
      'data.source': str(corpus),
      'eval.lengths': (16,),
      'eval.reach': 64,
      'eval.targets': 4,
      'eval.windows': 10,
      'eval.tokens': 512,
    }
    | fields,
    task_fields={'optimizer.batch': 8},
  )


def claim(id_: str = 'T01', models=None, tests=None, **fields) -> Claim:
  """That an untrained sinusoid is worse than ALiBi far out; anything in it may be replaced."""
  return Claim(
    **{
      'id': id_,
      'name': f'toy_{id_.lower()}',
      'title': 'A toy.',
      'paper': 'arXiv:0000.00000',
      'published': (Published('nothing', '1 / 2', 'table 1'),),
      'says': 'Nothing.',
      'models': models or {'alibi': Model('alibi'), 'rope': Model('rope')},
      'tests': tests
      or (
        Expect('RoPE - ALiBi at 4 L', nll('rope', 4) - nll('alibi', 4), above=0.5),
        Expect('found', found('rope', 2) - found('alibi', 2), above=-1, below=1, unit='share'),
      ),
      'traps': ('None.',),
      'figure': (1, 2),
    }
    | fields
  )


STRETCHED = {
  'rope': Model('rope'),
  'pi': Model('pi:factor=4', start='rope'),
  'tuned': Model('pi:factor=4', length=4, start='rope', share=50),
}
