"""Commands: `python scripts/VERB.py`, or `worldmodels VERB` where the project is installed."""
