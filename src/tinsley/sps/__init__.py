"""Stellar population synthesis: parameters to rest-frame light. Read galaxy.py first."""
