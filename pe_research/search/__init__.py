"""LongRoPE's search for a factor of each rotary pair (arXiv:2402.13753, algorithm 1).

space.py defines candidates, methods.py proposes them, objective.py measures their loss, ledger.py
records it; plan.py checks a search and run.py carries it out. Run `python -m pe_research.search`.
"""
