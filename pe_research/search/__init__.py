"""LongRoPE's search for a factor of each rotary pair (arXiv:2402.13753, algorithm 1).

space.py says what a candidate is, methods.py which ones to try, objective.py what they are worth,
run.py keeps what was found; `python -m pe_research.search` runs it.
"""
