"""The loss on held-out text while a run trains."""

from collections.abc import Callable

from pe_research.data import texts
from pe_research.evaluation import measures, scoring
from pe_research.model.functional import FunctionalDecoder


def validator(
  functional: FunctionalDecoder, corpus: texts.Corpus, config, mesh
) -> Callable[..., measures.Row]:
  """A function params -> {'validation_loss': nats/token} at the training length."""
  evaluation = {'reach': config['length'], 'protocols': ('non_overlapping',)}
  config = config | {'eval': config['eval'] | evaluation}
  scorer, plan = scoring.Scorer(functional, config, mesh), measures.plan(corpus, config)

  def validate(params) -> measures.Row:
    subject = scoring.Subject(scorer, params)
    row = measures.MEASURES['non_overlapping'](subject, plan, config['length'])
    return {'validation_loss': row['value']}

  return validate
