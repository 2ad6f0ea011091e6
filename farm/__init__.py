"""What all parts of the farm share: the model, its rules, its store and its words. No Ray, no torch, no web."""

__version__ = "0.1.0"
