"""A catalogue of any length: chunks, resume, manifest. Read run.py first."""
