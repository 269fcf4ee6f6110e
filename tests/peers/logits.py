"""Logits of exported folders by transformers; runs in an environment that has it, without JAX.

python logits.py INTO FOLDER...   reads FOLDER/ids.npy, int [B, L], writes INTO/NAME.npy, or
INTO/NAME.txt where transformers raises an error; and INTO/version
"""

import pathlib
import sys

import numpy as np
import torch
import transformers


def logits(folder: pathlib.Path) -> np.ndarray:
  """Of the tokens beside the model: [B, L, V]."""
  model, info = transformers.AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32, attn_implementation='eager', output_loading_info=True
  )
  assert not any(info[k] for k in ('missing_keys', 'unexpected_keys', 'mismatched_keys')), info
  ids = torch.from_numpy(np.load(folder / 'ids.npy').astype(np.int64))
  with torch.no_grad():
    return model(ids, use_cache=False).logits.numpy()


def main(into: pathlib.Path, folders: list[pathlib.Path]) -> None:
  """Writes all of it."""
  into.mkdir()
  (into / 'version').write_text(transformers.__version__)
  for folder in folders:
    try:
      np.save(into / f'{folder.name}.npy', logits(folder))
    except Exception as error:  # which the test looks at
      (into / f'{folder.name}.txt').write_text(f'{type(error).__name__}: {error}')
    if (folder / 'tokenizer.json').exists():
      tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
      text = (folder / 'text.txt').read_text()
      ids = tokenizer(text, add_special_tokens=False)['input_ids']
      np.save(into / f'{folder.name}.text.npy', ids)
      assert tokenizer.decode(ids) == text


if __name__ == '__main__':
  main(pathlib.Path(sys.argv[1]), [pathlib.Path(name) for name in sys.argv[2:]])
