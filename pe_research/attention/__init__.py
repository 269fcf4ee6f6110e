"""Attention: attend.py is dense; tiled.py, ring.py (several devices) and pallas.py save memory."""
