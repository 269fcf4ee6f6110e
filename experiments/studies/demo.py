"""The project's main experiment, as data: six decoders that differ in their positional scheme."""

CONFIG = 'configs/lm.py'
# Learned positions last: their run is the shortest, since they end at the training length.
POSITIONS = ('nope', 'sinusoidal', 't5', 'rope', 'alibi', 'learned')
SEEDS = (0,)
WORKDIR = 'results/demo'
