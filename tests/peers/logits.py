"""Logits of exported folders by transformers; runs in an environment that has it, without JAX.

python logits.py FOLDER...   reads FOLDER/ids.npy, int [B, L], writes FOLDER/logits.npy
"""

import pathlib
import sys

import numpy as np
import torch
import transformers

for argument in sys.argv[1:]:
  folder = pathlib.Path(argument)
  model, info = transformers.AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32, attn_implementation='eager', output_loading_info=True
  )
  assert not any(info[k] for k in ('missing_keys', 'unexpected_keys', 'mismatched_keys')), info
  ids = torch.from_numpy(np.load(folder / 'ids.npy').astype(np.int64))
  with torch.no_grad():
    logits = model(ids, use_cache=False).logits
  np.save(folder / 'logits.npy', logits.numpy())
  if (folder / 'tokenizer.json').exists():
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = (folder / 'text.txt').read_text()
    np.save(folder / 'text.npy', tokenizer(text, add_special_tokens=False)['input_ids'])
    assert tokenizer.decode(np.load(folder / 'text.npy')) == text
