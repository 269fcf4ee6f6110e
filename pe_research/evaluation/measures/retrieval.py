"""Exact match: of values hidden in a text, and of tasks at lengths beyond those of training.

An answer is exact if each of its tokens is the likeliest one after the right tokens before it. That
is what greedy decoding gives: up to its first mistake it has produced the right tokens. Teacher
forcing continues after a mistake and counts every token, which flatters.
"""

import numpy as np

from pe_research.data import needles, tasks
from pe_research.evaluation.measures import base
from pe_research.evaluation.measures.base import Plan, Row, Subject


def passkey(score: Subject, plan: Plan, length: int, control: str = 'none') -> Row:
  """Exact match of values hidden at a depth of the text: 'depth:0.5', 'depth:0+keys:4'.

  Depth 0 is the beginning of the text, 1 right before the question. With 'cropped' the model sees
  only the last `train_length` tokens; 'scale:1.2' multiplies the attention logits.
  """
  windows, planted = base.windows(plan, length), needles.Needles(plan.tokenizer)
  depth = float(base.option(control, 'depth', '0.5'))
  keys = int(base.option(control, 'keys', '1'))
  for i, window in enumerate(windows):
    planted.plant(window, np.random.default_rng([i, keys]), keys, depth)
  if 'cropped' in control.split('+'):
    windows = windows[:, -min(length, plan.train_length) - 1 :]
  scale = float(base.option(control, 'scale', '1'))
  exact = score.hits(windows, planted.answer, scale).all(-1, keepdims=True)
  row = base.by_document([plan.documents.names[d] for d, _ in plan.ends], exact)
  return row | {'unit': 'exact match', 'chance': needles.CHANCE, 'hits': int(exact.sum())}


def task(score: Subject, plan: Plan, length: int, control: str = 'exact') -> Row:
  """Examples of size `length`: 'exact' matches, or 'teacher' for the share of right tokens."""
  rows, answer = tasks.prompts(plan.task, length, plan.examples)
  right = score.hits(rows, answer)
  scored = right.all(-1, keepdims=True) if control == 'exact' else right
  names = [str(i) for i in range(len(rows))]
  row = base.by_document(names, scored) | {'answer_tokens': answer}
  if control == 'teacher':
    return row | {'unit': 'right tokens'}
  chance = tasks.TASKS[plan.task].chance(length)
  return row | {'unit': 'exact match', 'chance': chance, 'hits': int(scored.sum())}
