"""Figures from results. Read demo.py first."""
