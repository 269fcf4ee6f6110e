"""A byte-level language model trained short and tested long; the defaults are those of the demo.

--config=configs/lm.py:position=alibi,length=128 --config.position.max_bias=4
"""

import ml_collections
from ml_collections import config_dict

from pe_research.settings import configs


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the family; `arg` picks the scheme, its preset, training length and seed."""
  arg = configs.parse_arg(arg, position='rope', preset='published', length=64, seed=0)
  config = ml_collections.ConfigDict()
  config.seed = arg.seed  # initial parameters and data order
  config.length = arg.length  # tokens, training length
  config.steps = 1500
  config.matmul_precision = 'highest'  # 'default' lets TPUs and GPUs round float32 products
  config.position = configs.position(arg.position, arg.length, arg.preset)

  config.start = ml_collections.ConfigDict()  # weights to start from, for fine-tuning
  config.start.workdir = ''  # '': parameters are drawn
  config.start.step = config_dict.placeholder(int)  # of its checkpoint; None: the newest
  config.start.pretrained = ''  # folder of a published model instead, see pretrained.py

  config.model = ml_collections.ConfigDict()
  config.model.width = 64
  config.model.layers = 3
  config.model.heads = 4
  config.model.projection = config_dict.placeholder(str)  # 'mha', 'gqa', 'mqa', 'mla'; by kv_heads
  config.model.kv_heads = config_dict.placeholder(int)  # None: as many as heads, in 'mqa' 1
  config.model.head_dim = config_dict.placeholder(int)  # None: width / heads
  config.model.latent = config_dict.placeholder(int)  # for 'mla', as the next; None: 4 head_dim
  config.model.query_latent = config_dict.placeholder(int)  # None: queries are not compressed
  config.model.rotary_dim = config_dict.placeholder(int)  # None: head_dim / 2, even
  config.model.value_dim = config_dict.placeholder(int)  # None: head_dim
  config.model.attention_bias = False
  config.model.mlp = 'swiglu'  # 'gelu', 'gelu_exact', 'relu', 'squared_relu' or 'swiglu'
  config.model.mlp_width = config_dict.placeholder(int)  # None: 4 width, or 8/3 width if gated
  config.model.mlp_bias = False
  config.model.norm = 'rms'  # or 'layer'
  config.model.norm_eps = 1e-6
  config.model.norm_bias = False  # for 'layer'
  config.model.parallel = False  # attention and MLP of a block have the same input
  config.model.tied = True  # one table for input and output
  config.model.embedding_scale = True  # embeddings are multiplied by sqrt(width)
  config.model.embedding_norm = False
  config.model.qk_norm = False
  config.model.remat = 'none'  # 'block' trades time for memory
  config.model.dtype = 'float32'  # of the computation in blocks; parameters are float32

  config.attention = ml_collections.ConfigDict()
  config.attention.implementation = 'dense'  # 'tiled': memory linear in length; 'pallas': a kernel
  config.attention.window = config_dict.placeholder(int)  # last keys a query sees; None: all
  config.attention.tile = 512  # tokens on a side of a tile
  config.attention.absorbed = True  # 'mla' decodes in the latent space

  config.optimizer = ml_collections.ConfigDict()
  config.optimizer.batch = 32  # sequences per step, over all devices
  config.optimizer.accumulate = 1  # parts of a batch whose gradients are summed one by one
  config.optimizer.learning_rate = 3e-3  # AdamW, peak
  config.optimizer.schedule = 'cosine'  # after a linear warmup; 'wsd' or 'constant'
  config.optimizer.warmup = 100  # steps
  config.optimizer.decay = 0.2  # share of steps in which 'wsd' decays
  config.optimizer.final = 0.1  # last learning rate over the peak
  config.optimizer.weight_decay = 0.1  # for matrices; not for tables, norms or positions
  config.optimizer.b1 = 0.9
  config.optimizer.b2 = 0.95
  config.optimizer.eps = 1e-8
  config.optimizer.clip = 1.0  # global gradient norm; 0: none

  config.data = ml_collections.ConfigDict()
  config.data.source = 'state_of_the_union'  # or 'python_library', a folder, a tfds name
  config.data.train_split = 'train'
  config.data.validation_split = ''  # '': whole documents held out by a hash of their text
  config.data.validation_fraction = 0.2  # of the documents, where they are split by hash
  config.data.tokenizer = 'bytes'  # 'sentencepiece', trained on the training documents, or 'json'
  config.data.tokenizer_file = ''  # for 'json': a tokenizer.json
  config.data.vocab = 256  # for sentencepiece and json
  config.data.loader = 'memory'  # 'grain' for data that do not fit
  config.data.seed = config_dict.placeholder(int)  # of the data order; None: config.seed
  config.data.limit = config_dict.placeholder(int)  # tokens to train on, whole documents; None: all
  config.data.packing = False  # True: windows cross documents, attention does not
  config.data.needles = 0.0  # share of training windows with hidden values to retrieve
  config.data.needle_keys = 4  # at most in a window
  config.data.task = ''  # of tasks.TASKS: generated examples in place of text, see tasks.py
  config.data.task_size = 20  # symbols, digits or pairs of the longest training examples

  config.eval = ml_collections.ConfigDict()
  config.eval.every = 0  # steps between validation losses at the training length; 0: none
  config.eval.lengths = (64, 128, 256, 512, 1024, 2048, 4096)  # tokens of context
  config.eval.reach = config_dict.placeholder(int)  # context that targets have; None: the longest
  config.eval.protocols = ('fixed_targets',)
  config.eval.controls = ('none',)  # 'cropped', 'shuffled': of fixed targets; protocols.PROTOCOLS
  config.eval.measurements = ()  # 'passkey/depth:0.5/256': only these, not all combinations
  config.eval.targets = 16  # last tokens of a window that fixed targets score
  config.eval.windows = 128  # of fixed targets, spread evenly over the documents
  config.eval.stride = 64  # tokens that the sliding protocol scores per window
  config.eval.tokens = 65_536  # upper bound on tokens scored by the other protocols
  config.eval.batch_tokens = 4_096  # tokens evaluated at once, at least one window
  config.eval.implementation = 'tiled'

  config.run = ml_collections.ConfigDict()  # where and how often: no effect on results
  config.run.mesh = ml_collections.ConfigDict({'data': -1, 'fsdp': 1, 'tensor': 1})  # -1: the rest
  config.run.mesh.context = 1  # devices that share a sequence, only in evaluation
  config.run.data_dir = ''  # prepared corpora, also gs://; '': $PE_DATA or ~/.cache/pe_research
  config.run.save_every = 250  # steps
  config.run.keep = 2  # newest checkpoints kept
  config.run.log_every = 10  # steps
  config.run.patience = 1800.0  # seconds without a step until a run is ended as hanging; 0: none
  config.run.label = ''  # in figures; '': that of the scheme
  config.run.tensorboard = False
  config.run.wandb = ''  # project name; '': off
  return config
