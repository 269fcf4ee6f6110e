"""Measurements of a model, one function each; a row of numbers with what they were made of."""

import numpy as np

from pe_research.data import tasks, texts
from pe_research.evaluation.measures import base, losses, probe, retrieval
from pe_research.evaluation.measures.base import Plan, Row, Subject, option, plan

__all__ = ['MEASURES', 'Plan', 'Row', 'Subject', 'measure', 'option', 'plan']
MEASURES = {
  'fixed_targets': losses.fixed_targets,
  'non_overlapping': losses.non_overlapping,
  'sliding': losses.sliding,
  'by_position': losses.by_position,
  'passkey': retrieval.passkey,
  'probe': probe.probe,
  'task': retrieval.task,
}


def measure(
  score: Subject, scheme, plan: Plan, corpus: texts.Corpus, protocol: str, control: str, length: int
) -> Row:
  """One row; if the scheme is not defined at `length`, its value is None and it says why."""
  row: Row = {'protocol': protocol, 'control': control, 'eval_length': length}
  row['targets'] = base.targets(plan, protocol)
  used = min(length, plan.train_length) if 'cropped' in control.split('+') else length
  if protocol == 'task':
    used = tasks.tokens(plan.task, length) - 1
  try:
    scheme.check_length(used)
  except ValueError as error:
    return row | {'value': None, 'undefined': str(error)}
  row |= MEASURES[protocol](score, plan, length, control)
  if 'scored' not in row:
    return row
  count = int(corpus.tokenizer.token_bytes[row.pop('scored')].sum())
  bits = row['value'] * row['tokens'] / (np.log(2) * count)
  return row | {'bytes': count, 'bits_per_byte': float(bits)}
