"""The report's table of what a cached token takes, from the file that experiments.cache writes."""

import html
from collections.abc import Mapping
from typing import Any

from experiments.report import tables

FILE = 'cache.json'  # of a workdir


def section(found: Mapping[str, Any] | None) -> str:
  """HTML; empty where nothing was measured."""
  if found is None:
    return ''
  given, rows = found['settings'], found['rows']
  contexts = list(rows[0]['speed'])
  head = ['Projection', 'bytes/token<small>formula</small>', 'bytes/token<small>allocated</small>']
  head += [f'{int(n):,}<small>tokens/s after</small>' for n in contexts]
  cells = lambda row: [row['formula'], row['allocated'], *(row['speed'][n] for n in contexts)]
  shown = [
    [
      f'<th scope="row">{html.escape(row["name"])}</th>',
      *(f'<td><data value="{value!r}">{value:,.0f}</data></td>' for value in cells(row)),
    ]
    for row in rows
  ]
  about = (
    f'{given["layers"]} layers, width {given["width"]}, {given["heads"]} heads, batch '
    f'{given["batch"]}, {given["dtype"]}, {given["position"]}, {given["device"]}'
  )
  caption = f'What a cached token takes and how fast decoding is. {html.escape(about)}.'
  return f'<section><h2>Cache</h2>\n{tables.grid(caption, head, shown)}</section>'
