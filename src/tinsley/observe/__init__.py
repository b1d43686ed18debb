"""Rest-frame light to what a survey records. Read photometry.py first."""
