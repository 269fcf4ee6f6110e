"""The supported architectures; exporting takes the first that supports a model."""

from pe_research.huggingface.bloom import Bloom
from pe_research.huggingface.deepseek import DeepseekV2, DeepseekV3
from pe_research.huggingface.family import Family
from pe_research.huggingface.gpt2 import GPT2
from pe_research.huggingface.gpt_neox import GPTNeoX
from pe_research.huggingface.llama import Llama
from pe_research.huggingface.mpt import MPT

FAMILIES: tuple[Family, ...] = (
  Llama(),
  GPTNeoX(),
  GPT2(),
  Bloom(),
  MPT(),
  DeepseekV3(),
  DeepseekV2(),
)
