"""Training on tasks and needles: what is scored, in what order, and that it can be learned."""

import re

import jax
import numpy as np
import pytest
import run_fixtures

from pe_research import evaluate, main
from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.data import batches, needles, tasks, texts, tokenizers
from pe_research.model import transformer
from pe_research.model.functional import FunctionalDecoder
from pe_research.settings import cli, configs
from pe_research.storage import files
from pe_research.training import train_step  # fmt: skip


def config(name='copy', position='alibi', **fields):
  settings = {
    'model.width': 32, 'model.layers': 2, 'optimizer.batch': 32, 'steps': 30,
    'optimizer.warmup': 5, 'eval.windows': 20, 'run.save_every': 10, 'run.log_every': 1,
  } | {key.replace('__', '.'): value for key, value in fields.items()}  # fmt: skip
  flags = [f'--config=configs/tasks.py:task={name},size=4,position={position}']
  flags += [f'--config.{key}={value}' for key, value in settings.items()]
  return configs.resolve(cli.read_config(flags))


def measured(workdir):
  rows = files.read_rows(workdir / 'results.jsonl')
  return {(row['control'], row['eval_length']): row for row in rows}


def test_only_answers_are_scored():
  wanted = config()
  functional = FunctionalDecoder(wanted)
  decoder = functional.bind(jax.jit(functional.init)())
  batch = batches.build(texts.load(wanted), wanted, 0).draw()
  total, count = train_step.token_loss(decoder, batch, Spec(), jax.random.key(0))
  tokens = batch['tokens']
  at = Tokens.contiguous(tokens.shape[1] - 1)
  nll = np.asarray(transformer.loss(decoder(tokens[:, :-1], at, Spec()), tokens[:, 1:]))
  keep = batch['weights'][:, 1:].astype(bool)
  assert count == keep.sum() and 0 < keep.mean() < 0.5
  np.testing.assert_allclose(total, nll[keep].sum(), rtol=1e-5)
  padded = tokens.copy()
  padded[batch['weights'].cumsum(1) == batch['weights'].sum(1, keepdims=True)] = 7
  ends = batch['weights'].astype(bool)
  padded[ends] = tokens[ends]
  other, _ = train_step.token_loss(decoder, batch | {'tokens': padded}, Spec(), jax.random.key(0))
  np.testing.assert_allclose(other, total, rtol=1e-6)


@pytest.mark.parametrize('stream', ['task', 'needles'])
def test_batches_follow_from_seed_and_step(stream, tmp_path):
  if stream == 'task':
    wanted = config()
  else:
    corpus = run_fixtures.write_corpus(tmp_path / 'text')
    wanted = run_fixtures.config(corpus, data__needles=0.5, data__needle_keys=1)
  corpus = texts.load(wanted)
  whole = batches.build(corpus, wanted, 0)
  drawn = [next(whole) for _ in range(6)]
  shapes = batches.shapes(wanted, 0)
  assert shapes.keys() == drawn[0].keys()
  assert all(shapes[k].shape == v.shape and shapes[k].dtype == v.dtype for k, v in drawn[0].items())
  parted = batches.build(corpus, wanted, 0)
  for _ in range(3):
    next(parted)
  again = batches.build(corpus, wanted, 0)
  again.restore(parted.state())
  for batch in drawn[3:]:
    got = next(again)
    for name in batch:
      np.testing.assert_array_equal(got[name], batch[name])
  assert again.chain == whole.chain
  other = dict(wanted, data=wanted['data'] | {'seed': 1})
  assert not np.array_equal(next(batches.build(corpus, other, 0))['tokens'], drawn[0]['tokens'])


def test_needles_lie_in_a_share_of_the_windows_of_the_text(tmp_path):
  corpus = run_fixtures.write_corpus(tmp_path / 'text')
  plain = run_fixtures.config(corpus, length=40)
  planted = dict(plain, data=plain['data'] | {'needles': 0.5, 'needle_keys': 2})
  text = texts.load(plain)
  one, other = (batches.build(text, c, 0) for c in (plain, planted))
  rows = [(a, b) for _ in range(20) for a, b in zip(next(one)['tokens'], next(other)['tokens'],
                                                    strict=True)]  # fmt: skip
  changed = [(a, b) for a, b in rows if (a != b).any()]
  assert 0.35 < len(changed) / len(rows) < 0.65
  size = needles.Needles(tokenizers.Bytes()).size
  for before, after in changed:
    assert bytes(after[-size:].astype(np.uint8)) in bytes(after[:-size].astype(np.uint8))
    text = bytes(after.astype(np.uint8)).decode()
    inside = np.zeros(len(after), bool)
    for needle in re.finditer(r'<[A-Z]=\d{4}>', text):
      inside[slice(*needle.span())] = True
    assert (before == after)[~inside].all() and inside.sum() % size == 0
    assert len(set(re.findall(r'<([A-Z])=', text))) <= 2


def test_a_task_is_learned_and_measured(tmp_path):
  # Of four symbols the last answer is the first symbol: a task that a small model learns at once.
  fields = {'steps': 150, 'optimizer__learning_rate': 0.01, 'eval__lengths': '(4, 8)'}
  wanted = config('flip_flop', **fields)
  main.run(wanted, tmp_path)
  rows = {(r['control'], r['eval_length']): r for r in files.read_rows(tmp_path / 'results.jsonl')}
  assert rows.keys() == {(c, n) for c in ('exact', 'teacher') for n in (4, 8)}
  exact, teacher = rows['exact', 4], rows['teacher', 4]
  assert exact['value'] > 0.7 > exact['chance'] and exact['tokens'] == 20
  assert teacher['value'] >= exact['value'] and teacher['tokens'] == 40
  losses = list(run_fixtures.losses(tmp_path).values())
  assert losses[-1] < 0.5 * losses[0]


def test_a_scheme_that_ends_says_so_of_longer_tasks(tmp_path):
  wanted = config(position='learned', steps=6)
  main.run(wanted, tmp_path)
  rows = {(r['control'], r['eval_length']): r for r in files.read_rows(tmp_path / 'results.jsonl')}
  assert rows['exact', 4]['value'] is not None
  assert 'asked for 13' in rows['exact', 6]['undefined'] and tasks.tokens('copy', 6) == 14


def test_measurements_can_be_listed(tmp_path, capsys):
  corpus = run_fixtures.write_corpus(tmp_path / 'text')
  wanted = run_fixtures.config(corpus, 'alibi', eval__lengths='(16,)', eval__reach=64)
  main.run(wanted, tmp_path / 'run')
  listed = ['passkey/depth:0.5/32', 'fixed_targets/scale:1.5/16', 'probe/layer:1/16']
  flags = [f'--measurement={text}' for text in listed]
  mark = tmp_path / 'run' / 'mark.json'
  evaluate.main([f'--workdir={tmp_path / "run"}', *flags, f'--done={mark}'])
  rows = files.read_rows(tmp_path / 'run' / 'results.jsonl')
  found = [f'{r["protocol"]}/{r["control"]}/{r["eval_length"]}' for r in rows]
  assert sorted(found) == sorted([*listed, 'fixed_targets/none/16'])
  assert len({row['settings'] for row in rows}) == 1
  assert files.read_json(mark)['measurements'] == listed
  evaluate.main([f'--workdir={tmp_path / "run"}', *flags])
  assert len(files.read_rows(tmp_path / 'run' / 'results.jsonl')) == 4
  capsys.readouterr()
