"""Where papers contradict each other or themselves, and a claim here speaks to it."""

import html
from collections.abc import Sequence

from experiments.report.claims.rows import Row, effect_text

# What is contradicted, and the claims whose numbers bear on it.
FOUND = (
  ('ALiBi calls the T5 bias relatively flat under a sliding window; its own table 14 has it rise '
   'from 17.92 to 30.77.', ('C01', 'C02', 'C04')),
  ("ALiBi's headline holds at equal time (8.92 against 9.01), not at equal updates (8.92 against "
   '8.83).', ('C03',)),
  ("YaRN's ramp is linear in rotations in the paper (eq. 18), and linear in the index of the pair "
   'in all code, the published numbers included.', ('C11', 'C20')),
  ("YaRN's table 1 ends at 10,240 tokens; in the authors' data NTK-aware is ahead at 16,384 (74.4 "
   'against 77.2).', ('C18',)),
  ('LongRoPE finds YaRN three times worse than PI on PG-19 without training; PoSE finds it eight '
   'times better on GovReport.', ('C11',)),
  ('The temperature of LongRoPE in released code is not in its paper.', ('C20', 'C22')),
  ('DroPE tunes its logit scale at the target length, and none of its baselines.', ('C25',)),
  ("The rotary of the study of NoPE's length generalisation turns a quarter of a head.", ('C08',)),
  ('DeepSeek-V2 needs 0.0707 ln s + 1 where YaRN has 0.1 ln s + 1 for all models.', ('C13',)),
)  # fmt: skip


def _bearing(rows: Sequence[Row], ids: Sequence[str]) -> list[tuple[str, str]]:
  """Claims, and what was found of each."""
  found = []
  for row in rows:
    if row.claim.id in ids:
      effect = f' ({row.decides.test.says}: {effect_text(row.decides)})' if row.decides else ''
      found.append((row.claim.id, f'{row.verdict}{effect}'))
  return sorted(found)


def section(rows: Sequence[Row]) -> str:
  """As HTML."""
  items = []
  for text, ids in FOUND:
    links = '; '.join(
      f'<a href="#{name}">{name}</a> {html.escape(said)}' for name, said in _bearing(rows, ids)
    )
    items.append(f'<li>{html.escape(text)} Here: {links}.</li>')
  return (
    '<section><h2>Contradictions between papers</h2>\n<p>And what is measured here of each.</p>\n'
    f'<ul>{"".join(items)}</ul></section>'
  )


def markdown(rows: Sequence[Row]) -> list[str]:
  """As lines of Markdown."""
  lines = ['## Contradictions between papers', '']
  for text, ids in FOUND:
    said = '; '.join(f'{name} {said}' for name, said in _bearing(rows, ids))
    lines.append(f'- {text} Here: {said}.')
  return lines
