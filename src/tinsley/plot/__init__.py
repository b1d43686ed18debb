"""Figures from results: arrays in, a matplotlib `Figure` out; no files, no global state.

Read style.py first: labels, colours and empty axes that all figures share.
"""
