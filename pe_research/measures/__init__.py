"""Measurements of a model, one function each: a row of numbers that says what it was made of."""

import numpy as np

from pe_research import data, tasks
from pe_research.measures.base import Plan, Row, Subject, option, plan
from pe_research.measures.losses import by_position, fixed_targets, non_overlapping, sliding
from pe_research.measures.probe import probe
from pe_research.measures.retrieval import passkey, task

__all__ = ['MEASURES', 'Plan', 'Row', 'Subject', 'measure', 'option', 'plan']
MEASURES = {
  'fixed_targets': fixed_targets,
  'non_overlapping': non_overlapping,
  'sliding': sliding,
  'by_position': by_position,
  'passkey': passkey,
  'probe': probe,
  'task': task,
}


def measure(
  score: Subject, scheme, plan: Plan, corpus: data.Corpus, protocol: str, control: str, length: int
) -> Row:
  """One row; where the scheme is not defined at `length` it has no value but the reason."""
  row: Row = {'protocol': protocol, 'control': control, 'eval_length': length}
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
