"""The decoder: transformer.py has its blocks, functional.py is what training and evaluation use."""
