"""A claim whose runs take seconds, carried out by the command of claims."""

import dataclasses

from experiments import claims
from experiments.faults import forks, works
from experiments.studies import scales
from experiments.studies.terms import Claim, Expect, Model, Published, nll

TOY = Claim(
  id='T01',
  name='toy',
  title='A toy.',
  paper='arXiv:0000.00000',
  published=(Published('nothing', '1 / 2', 'table 1'),),
  says='Nothing.',
  models={'rope': Model('rope')},
  tests=(Expect('RoPE at 2 L - RoPE at L', nll('rope', 2) - nll('rope', 1), above=0.5),),
  traps=('None.',),
  figure=(1, 2),
)


def main(argv: list[str]) -> int:
  """Runs the claim in a folder."""
  fields = dict(field.split('=', 1) for field in works.SIZES)
  tiny = {'eval.lengths': (16,), 'eval.reach': 32, 'optimizer.warmup': 2, 'optimizer.batch': 8}
  kept = ('steps', 'model.width', 'model.heads', 'run.save_every', 'eval.windows', 'eval.tokens')
  tiny |= {name: int(fields[name]) for name in kept} | {'eval.targets': 4}
  tiny['data.source'] = fields['data.source']
  scale = dataclasses.replace(scales.CPU, length=16, seeds=2, fields=tiny)
  scales.SCALES['cpu'], claims.CLAIMS = scale, {TOY.id: TOY}
  run = forks.entry('experiments')
  return run(['run', TOY.id, f'--seeds={TOY.fewest_seeds}', f'--workdir={argv[0]}'])
