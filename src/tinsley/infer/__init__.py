"""The posterior of one galaxy. Read amortized.py first."""
