"""The only code that opens a file. Read catalogs.py first."""
