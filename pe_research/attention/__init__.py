"""Attention: one definition, computed dense, by tiles, over several devices, or by a kernel."""
