"""Plans: what is shared is planned once, and what cannot be run is refused before anything runs."""

import dataclasses
import itertools

import claim_fixtures
import pytest
import run_fixtures

from experiments import claims
from experiments.report.claims import drawings
from experiments.studies import runner, scales
from experiments.studies.plan import Planner, quantities
from experiments.studies.quantities import DERIVED
from experiments.studies.terms import SURE, Expect, Model, Quantity, nll, solved
from launch import local
from launch.job import Job
from pe_research import positions
from pe_research.model.functional import FunctionalDecoder

ALL = list(claims.CLAIMS.values())
each_claim = pytest.mark.parametrize('claim', ALL, ids=lambda c: c.id)


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
  return claim_fixtures.scale(run_fixtures.write_corpus(tmp_path_factory.mktemp('toy') / 'text'))


@each_claim
def test_a_claim_is_whole(claim):
  assert claim.id == f'C{int(claim.id[1:]):02}' and claim.title.endswith('.')
  assert claim.paper.startswith('arXiv:') and claim.published and claim.traps and claim.says
  for published in claim.published:
    assert published.what and published.value and published.read in SURE[:3]
  named = {quantity.model for quantity in quantities(claim)}
  assert named <= claim.models.keys()
  used = named | {model.start for model in claim.models.values()}
  assert set(claim.models) <= used, 'a model that nothing is measured of'
  for test in claim.tests:
    assert test.above is not None or test.below is not None
    assert test.above is None or test.below is None or test.above < test.below
  assert all(q.of in DERIVED for q in quantities(claim))
  labels = [drawings.label(claim, name) for name in claim.models]
  assert len(set(labels)) == len(labels), 'two models that a table cannot tell apart'
  assert claim.fewest_seeds >= 3


@each_claim
@pytest.mark.parametrize('name', scales.SCALES)
def test_a_claim_can_be_planned_at_its_scales(claim, name, tmp_path):
  scale = scales.SCALES[name]
  planner, nodes = runner.prepare([claim], scale, 1, tmp_path)
  jobs = planner.jobs()
  assert len({job.name for job in jobs}) == len({job.done for job in jobs}) == len(jobs)
  written = {job.done for job in jobs}
  assert all(set(job.after) <= written for job in jobs)
  assert not any(tmp_path.iterdir())
  assert nodes[claim.id].keys() == claim.models.keys()


@pytest.mark.parametrize('name', scales.SCALES)
def test_latent_and_grouped_attention_have_the_parameters_of_the_plain(name, tmp_path):
  claim = claims.CLAIMS['C31']
  _, nodes = runner.prepare([claim], scales.SCALES[name], 1, tmp_path)
  counts = {
    model: FunctionalDecoder(node.config).sizes()['parameters']
    for model, (node,) in nodes['C31'].items()
  }
  assert all(abs(n / counts['mha, published'] - 1) < 2e-3 for n in counts.values()), counts
  if name == 'cpu':
    assert all(f'{n:,}' in ' '.join(claim.traps) for n in counts.values())


def test_a_field_may_differ_by_scale(toy, tmp_path):
  fields = {'steps': {'toy': 7, 'cpu': 9}, 'model.layers': {'cpu': 5}, 'model.width': 24}
  planned = claim_fixtures.claim(
    models={'rope': Model('rope', fields=fields), 'alibi': Model('alibi')}
  )
  _, nodes = runner.prepare([planned], toy, 3, tmp_path)
  config, usual = (nodes['T01'][name][0].config for name in ('rope', 'alibi'))
  assert config['steps'] == 7 and config['model']['width'] == 24
  assert config['model']['layers'] == usual['model']['layers']


def test_tokens_may_be_a_share_of_the_training_length(tmp_path):
  claim = claims.CLAIMS['C21']
  for name, length in (('cpu', 64), ('accelerator', 512)):
    _, nodes = runner.prepare([claim], scales.SCALES[name], 1, tmp_path)
    kept = [n.config['position']['start_tokens'] for m, (n,) in nodes['C21'].items() if 's=4' in m]
    assert kept[:5] == [0, length // 64, length // 32, length // 16, length // 4]


def names(planner: Planner) -> list[tuple]:
  return sorted((job.name, job.command, job.done, job.after) for job in planner.jobs())


def test_claims_share_what_is_the_same(toy, tmp_path):
  one = claim_fixtures.claim()
  two = claim_fixtures.claim('T02', models=claim_fixtures.STRETCHED, tests=(
    Expect('PI - RoPE', nll('pi', 4) - nll('rope', 4), below=0),
    Expect('PI, tuned - RoPE', nll('tuned', 4) - nll('rope', 4), below=0),
  ))  # fmt: skip
  alone = [runner.prepare([c], toy, 3, tmp_path)[0] for c in (one, two)]
  both, nodes = runner.prepare([one, two], toy, 3, tmp_path)
  trained = lambda planner: {key for key, node in planner.nodes.items() if node.trains}
  assert trained(both) == trained(alone[0]) | trained(alone[1])
  assert len(trained(both)) == 9 and len(trained(alone[0])) == len(trained(alone[1])) == 6
  assert nodes['T01']['rope'] == nodes['T02']['rope']
  wanted = nodes['T01']['rope'][0].wanted
  assert {'passkey/depth:0.5/32', 'fixed_targets/none/64', 'fixed_targets/none/16'} <= wanted
  seeds = [node.config['seed'] for node in nodes['T02']['tuned']]
  assert seeds == [0, 1, 2]


def test_the_order_of_claims_changes_nothing(toy, tmp_path):
  own = [claim_fixtures.claim(f'T0{i}', models={n: Model(n) for n in pair}, tests=(
    Expect('a', nll(pair[0]) - nll(pair[1], 2), above=0),
  )) for i, pair in enumerate(itertools.combinations(('nope', 'alibi', 'rope'), 2))]  # fmt: skip
  planned = [
    names(runner.prepare(order, toy, 2, tmp_path)[0]) for order in itertools.permutations(own)
  ]
  assert all(plan == planned[0] for plan in planned)


def test_a_plan_made_twice_is_the_same(toy, tmp_path):
  claim = claim_fixtures.claim(models=claim_fixtures.STRETCHED, tests=(
    Expect('a', nll('tuned', 4) - nll('pi', 4), below=0),
  ))  # fmt: skip
  planner, first = runner.prepare([claim], toy, 2, tmp_path)
  before = names(planner)
  again = planner.add(claim, range(2))
  assert names(planner) == before == names(runner.prepare([claim], toy, 2, tmp_path)[0])
  assert again == first['T01']


def test_what_decides_results_decides_the_key(toy, tmp_path):
  claim = claim_fixtures.claim()
  key = lambda scale, seed=0, name='rope': (
    Planner(scale, tmp_path).node(claim, name, seed).key
  )  # fmt: skip
  plain = key(toy)
  assert plain == key(dataclasses.replace(toy, fields=toy.fields | {'run.log_every': 7}))
  others = [
    key(toy, 1), key(toy, name='alibi'),
    key(dataclasses.replace(toy, fields=toy.fields | {'optimizer.learning_rate': 1e-4})),
    key(dataclasses.replace(toy, fields=toy.fields | {'eval.windows': 9})),
  ]  # fmt: skip
  assert len({plain, *others}) == 5


def test_tuned_runs_have_their_share_of_tokens_and_the_rules_of_the_run(toy, tmp_path):
  claim = claim_fixtures.claim(models=claim_fixtures.STRETCHED | {'long': Model('rope', length=4)})
  planner = Planner(toy, tmp_path)
  rope, tuned, long = (planner.node(claim, name, 1) for name in ('rope', 'tuned', 'long'))
  tokens = lambda node: (
    node.config['steps'] * node.config['optimizer']['batch'] * node.config['length']
  )
  assert tokens(tuned) == 0.5 * tokens(rope) and tokens(long) == tokens(rope)
  assert tuned.config['length'] == long.config['length'] == 64
  assert tuned.config['position'] | {'train_length': 16, 'factor': 4.0} == tuned.config['position']
  assert tuned.config['data']['seed'] != rope.config['data']['seed']
  same = ('model', 'attention', 'matmul_precision')
  assert all(tuned.config[field] == rope.config[field] for field in same)
  assert tuned.config['eval'] == rope.config['eval'] | {'reach': 64}


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'models': {'x': Model('rop')}}, ['T01', "model 'x'", "'rop'", 'Did you mean rope']),
    ({'models': {'x': Model('rope:bsae=3')}}, ['T01', "model 'x'", 'bsae']),
    ({'models': {'x': Model('pi:factor=4', start='y')}}, ['T01', "model 'x'", "'y'"]),
    ({'models': {'x': Model('rope', task='cpoy')}}, ['T01', "model 'x'", 'cpoy', 'copy']),
    ({'tests': (Expect('a', nll('z') - nll('x'), above=0),)}, ['T01', "'z'", 'x']),
    (
      {'tests': (Expect('a', Quantity('x', 'pas') - nll('x'), above=0),)},
      ['T01', "'pas'", 'passkey'],
    ),
    (
      {'tests': (Expect('a', Quantity('x', control='depth:2') - nll('x'), above=0),)},
      ['T01', "'fixed_targets/depth:2/1'", 'cropped'],
    ),
    (
      {'tests': (Expect('a', Quantity('x', of='raech') - nll('x'), above=0),)},
      ['T01', "'raech'", 'reach'],
    ),
    (
      {'tests': (Expect('a', Quantity('x', control='scale:{foo}') - nll('x'), above=0),)},
      ['T01', "'scale:{foo}'", '{middle}'],
    ),
    ({'models': {'x': Model('rope', length=0)}}, ['T01', "model 'x'", 'length is 0 L']),
    ({'models': {'x': Model('rope', length=-1)}}, ['T01', "model 'x'", 'length is -1 L']),
    ({'models': {'x': Model('rope', share=5)}}, ["model 'x'", 'share is 5', 'name a start']),
    ({'models': {'x': Model('rope', start='x')}}, ["model 'x'", 'x <- x']),
    (
      {'models': {'x': Model('rope', start='y'), 'y': Model('rope', start='x')}},
      ["model 'x'", 'x <- y <- x'],
    ),
    (
      {'models': {'x': Model('longrope:file={searched}', start='y', searched=4, method='papr'),
                  'y': Model('rope')}},
      ["model 'x'", "'papr'", 'paper'],
    ),
    (
      {'models': {'x': Model('longrope:file={searched}', start='y'), 'y': Model('rope')}},
      ["model 'x'", '{searched}', 'the position is'],
    ),
    (
      {'models': {'y': Model('rope'), 'x': Model('longrope:file={searched}', start='y', searched=4,
                                                 short=1)}},
      ["model 'x'", 'short is 1', "'y' has no searched factors"],
    ),
    (
      {'models': {'x': Model('rope', start='y', task='copy'), 'y': Model('rope')}},
      ["model 'x'", "task is 'copy'", "'y'"],
    ),
    (
      {'models': {'x': Model('rope', fields={'steps': {'cpuu': 3}})}},
      ["model 'x'", "'cpuu'", 'cpu'],
    ),
    ({'tests': (Expect('a', nll('x', 2) - nll('x')),)}, ["test 'a'", 'above is None']),
    (
      {'tests': (Expect('a', nll('x', 2) - nll('x'), above=1, below=0.5),)},
      ["test 'a'", 'above 1 and below 0.5'],
    ),
    (
      {'tests': (Expect('a', nll('x', 2) - nll('x'), above=float('nan')),)},
      ["test 'a'", 'above is nan'],
    ),
    (
      {'tests': (Expect('a', nll('x', 100) - nll('x'), above=0),)},
      ["measured of 'x'", 'eval.reach (64)', '(1600)'],
    ),
    (
      {'tests': (Expect('a', nll('x', -1) - nll('x'), above=0),)},
      ["measured of 'x'", "'fixed_targets/none/-16'"],
    ),
    (
      {'tests': (Expect('a', solved('x', 2) - nll('x'), above=0),)},
      ["measured of 'x'", "'task'", 'data.task'],
    ),
    (
      {'models': {'x': Model('rope', task='copy')}},
      ["measured of 'x'", "task 'copy'", 'fixed_targets'],
    ),
  ],
)  # fmt: skip
def test_a_claim_that_asks_for_what_there_is_not_is_refused(changes, words, toy, tmp_path):
  usual = (Expect('a', nll('x', 2) - nll('x'), above=0),)
  claim = claim_fixtures.claim(**{'models': {'x': Model('rope')}, 'tests': usual} | changes)
  with pytest.raises(ValueError) as error:
    runner.prepare([claim], toy, 1, tmp_path)
  for word in words:
    assert word in str(error.value), str(error.value)
  assert not any(tmp_path.iterdir())


def test_unknown_claims_are_named_with_the_nearest():
  with pytest.raises(ValueError, match=r"'alibi_extrapolate'.*alibi_extrapolates"):
    claims.find(['alibi_extrapolate'])
  assert [c.id for c in claims.find(['C02', 'alibi_extrapolates', 'C02'])] == ['C02', 'C01']
  assert claims.find([]) == ALL


def test_every_scheme_that_is_trained_has_a_place_in_the_ledger():
  used = {model.position.partition(':')[0] for c in ALL for model in c.models.values()}
  assert used <= positions.SCHEMES.keys()
  assert {'alibi', 'rope', 't5', 'yarn', 'longrope', 'pose', 'rand_pos', 'drope', 'rnope'} <= used


def test_a_job_waits_for_what_it_needs_and_falls_with_it(tmp_path):
  make = lambda name, code, after=(): Job(
    name, ('-c', f'import pathlib, sys; {code}; pathlib.Path(sys.argv[1]).touch()',
           str(tmp_path / name)), tmp_path / f'{name}.log', tmp_path / name,
    tuple(tmp_path / a for a in after),
  )  # fmt: skip
  jobs = [
    make('last', f'assert pathlib.Path({str(tmp_path / "first")!r}).exists()', ['first']),
    make('first', 'pass'),
    make('bad', 'sys.exit(3)'),
    make('blocked', 'pass', ['bad']),
  ]
  failed = local.run(jobs, lambda: None, 2)
  assert sorted(failed) == ['bad', 'blocked']
  assert (tmp_path / 'last').exists() and not (tmp_path / 'blocked').exists()
