"""The project's main experiment, as data: six decoders that differ in their positional scheme."""

CONFIG = 'configs/lm.py'
POSITIONS = ('nope', 'learned', 'sinusoidal', 't5', 'rope', 'alibi')
SEEDS = (0,)
WORKDIR = 'results/demo'
