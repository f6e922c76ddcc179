"""CoPL Studio: people compare two answers, and a personalised reward model learns who likes what."""

__version__ = "0.1.0"
