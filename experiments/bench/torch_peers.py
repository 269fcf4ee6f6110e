"""The same work in PyTorch; runs in a Python that has it, without JAX, and prints one JSON line.

  python torch_peers.py '{"mode": "train", "peer": "x-transformers", "position": "rope", ...}'

Wants torch 2.13.0, transformers 5.23.0, x-transformers 2.31.10.
"""

import json
import resource
import statistics
import sys
import time

import torch

VOCAB = 256


def llama(work):
  """transformers' Llama, as wide and deep as ours."""
  import transformers

  config = transformers.LlamaConfig(
    vocab_size=VOCAB,
    hidden_size=work['width'],
    intermediate_size=8 * -(-work['width'] * 8 // 24),
    num_hidden_layers=work['layers'],
    num_attention_heads=work['heads'],
    max_position_embeddings=work['length'] + work['tokens'] + 1,
    tie_word_embeddings=True,
    eos_token_id=None,
  )
  return transformers.LlamaForCausalLM(config)


def x_transformers(work):
  """x-transformers' decoder, through its fused attention where the bias allows."""
  import x_transformers as library

  kinds = {
    'rope': {'rotary_pos_emb': True},
    'alibi': {'alibi_pos_bias': True, 'alibi_num_heads': work['heads']},
    't5': {'rel_pos_bias': True},
  }
  layers = library.Decoder(
    dim=work['width'],
    depth=work['layers'],
    heads=work['heads'],
    attn_dim_head=work['width'] // work['heads'],
    attn_flash=work['position'] != 't5',
    **kinds[work['position']],
  )
  return library.TransformerWrapper(
    num_tokens=VOCAB, max_seq_len=work['length'], use_abs_pos_emb=False, attn_layers=layers
  )


def logits(model, ids):
  """[B, L, V]."""
  found = model(ids)
  return getattr(found, 'logits', found)


def clock(call) -> float:
  """Seconds that a call takes."""
  start = time.perf_counter()
  call()
  return time.perf_counter() - start


def train(model, work):
  """Tokens a second of whole steps, the median."""
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
  ids = torch.randint(0, VOCAB, (work['batch'], work['length'] + 1))

  def loss():
    out = logits(model, ids[:, :-1]).reshape(-1, VOCAB)
    return torch.nn.functional.cross_entropy(out, ids[:, 1:].reshape(-1))

  if work['compile']:
    loss = torch.compile(loss)

  def step():
    optimizer.zero_grad(set_to_none=True)
    loss().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

  step(), step()
  seconds = statistics.median(clock(step) for _ in range(work['steps']))
  return {'tokens_per_second': round(work['batch'] * work['length'] / seconds)}


@torch.no_grad()
def forward(model, work):
  """Seconds of a pass over one sequence, the median of three after a short one."""
  model.eval()
  logits(model, torch.randint(0, VOCAB, (1, 64)))
  ids = torch.randint(0, VOCAB, (1, work['length']))
  seconds = statistics.median(clock(lambda: logits(model, ids)) for _ in range(3))
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  return {'seconds': round(seconds, 2), 'peak_gb': round(peak, 2)}


@torch.no_grad()
def decode(model, work):
  """Tokens a second of greedy generation with the cache, without the reading of the prompt."""
  model.eval()
  ids = torch.randint(0, VOCAB, (work['batch'], work['length']))
  run = lambda tokens: model.generate(
    ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, pad_token_id=0
  )
  run(1)
  best = lambda tokens: min(clock(lambda: run(tokens)) for _ in range(3))
  seconds = best(work['tokens'] + 1) - best(1)
  return {'tokens_per_second': round(work['batch'] * work['tokens'] / seconds)}


def main():
  """Reads the work, prints it with its figures."""
  work = json.loads(sys.argv[1])
  torch.manual_seed(0)
  model = {'llama': llama, 'x-transformers': x_transformers}[work['peer']](work)
  figures = {'train': train, 'forward': forward, 'decode': decode}[work['mode']](model, work)
  figures['parameters'] = sum(p.numel() for p in model.parameters())
  print(json.dumps(work | figures | {'torch': torch.__version__}), flush=True)


if __name__ == '__main__':
  main()
