"""Damage to one file of a folder."""

import dataclasses
import pathlib
import random
import re
from collections.abc import Sequence

KINDS = ('cut', 'emptied', 'zeroed', 'bit', 'digit', 'deleted', 'swapped')
# Texts, caches and parts of a checkpoint are named by what they belong to.
NAMES = {'text': 'the text is not the one', 'data': '/data/', 'checkpoints': 'checkpoint'}


@dataclasses.dataclass(frozen=True)
class Done:
  """Damage.

  Attributes:
    path: of the file, in its folder.
    kind: of KINDS.
    detail: what was changed.
    content: of the file since; None: there is none.
  """

  path: str
  kind: str
  detail: str
  content: bytes | None

  def is_named(self, message: str) -> bool:
    """Whether a message names the file, or what it is a part of."""
    parts = self.path.split('/')
    wanted = [NAMES[part] for part in parts if part in NAMES]
    return self.path in message or parts[-1] in message or any(one in message for one in wanted)

  def is_as_left(self, folder: pathlib.Path) -> bool:
    """Whether nothing has changed the file since."""
    path = folder / self.path
    return (path.read_bytes() if path.exists() else None) == self.content


def apply(
  draw: random.Random, folder: pathlib.Path, patterns: Sequence[str], twin: pathlib.Path
) -> Done:
  """Damages one file of those that match; `twin` has files of the same names, of another run."""
  found = [path for pattern in patterns for path in folder.glob(pattern)]
  path = draw.choice(sorted({one for one in found if one.is_file()}))
  name, content = str(path.relative_to(folder)), path.read_bytes()
  kind = draw.choice(KINDS)
  other = _other(draw, path, twin / name)
  # Other factors that fit are as good an input; which were used is on record by their digest.
  if kind == 'swapped' and (other in (None, content) or path.name == 'factors.json'):
    kind = 'cut'
  if kind == 'digit' and not re.search(rb'\d', content):
    kind = 'bit'
  if not content:
    kind = 'deleted'
  changed, detail = _changed(draw, kind, content, other)
  if changed is None:
    path.unlink()
  else:
    path.write_bytes(changed)
  return Done(name, kind, detail, changed)


def _other(draw: random.Random, path: pathlib.Path, twin: pathlib.Path) -> bytes | None:
  """The content of the same file of another run, or of a neighbour where names are digests."""
  if not twin.exists() or twin == path:
    beside = sorted(p for p in path.parent.iterdir() if p.is_file() and p != path)
    beside = [p for p in beside if p.suffix == path.suffix and p.stat().st_size]
    return draw.choice(beside).read_bytes() if beside else None
  return twin.read_bytes()


def _changed(draw: random.Random, kind: str, content: bytes, other: bytes | None):
  """The content after damage, None if it is deleted, and what was changed."""
  if kind == 'deleted':
    return None, ''
  if kind == 'emptied':
    return b'', f'of {len(content)} bytes'
  if kind == 'swapped':
    return other, ''
  at = draw.randrange(len(content))
  if kind == 'cut':
    return content[:at], f'{at} of {len(content)} bytes left'
  if kind == 'zeroed':
    end = min(len(content), at + draw.choice((1, 16, 512, 2**20)))
    return content[:at] + bytes(end - at) + content[end:], f'bytes {at} to {end}'
  changed = bytearray(content)
  if kind == 'digit':
    at = draw.choice([found.start() for found in re.finditer(rb'\d', content)])
    changed[at] = ord(draw.choice([d for d in '0123456789' if ord(d) != changed[at]]))
  else:
    changed[at] ^= 1 << draw.randrange(8)
  return bytes(changed), f'byte {at} of {len(content)}'
