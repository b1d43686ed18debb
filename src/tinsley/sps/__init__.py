"""Stellar population synthesis: parameters and redshift to rest-frame light. Read galaxy.py first."""
