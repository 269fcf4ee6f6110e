"""What a result was computed with: commit, code, versions, machine."""

import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

from pe_research.common import digest

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'grain')
ROOT = pathlib.Path(__file__).parents[2]


def provenance() -> dict[str, Any]:
  """Commit, whether the working tree was clean, hash of the code, versions and machine."""
  return {
    'commit': _git('rev-parse', 'HEAD'),
    'clean': _git('status', '--porcelain') == '',
    'code': code(),
    'versions': {name: importlib.metadata.version(name) for name in PACKAGES},
    'python': platform.python_version(),
    'machine': f'{platform.system()} {platform.machine()}',
  }


def code() -> str:
  """Hash of the source files."""
  return digest.of_bytes(*(path.read_bytes() for path in sources()))


def sources() -> list[pathlib.Path]:
  """The Python files that training and measurements run."""
  folders = [ROOT / name for name in ('pe_research', 'configs')]
  return [path for folder in folders for path in sorted(folder.rglob('*.py'))]


def _git(*arguments: str) -> str | None:
  """Output of git in the checkout; None without git or outside a checkout."""
  command = ['git', '-C', str(ROOT), *arguments]
  try:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
  except OSError:  # no git on this machine
    return None
  return result.stdout.strip() if result.returncode == 0 else None
