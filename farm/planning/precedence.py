"""The figures of the scheduling policy that people are told too: how long a job waits before others' claims no longer come first.

The rules, and why they are so, are in docs/decisions/0011-the-scheduling-policy.md.
"""

AGEING_S = 3600.0
"""So long in vain weighs as much as one step of priority: a lane that gets nothing rises, and falls back once it was served."""
PATIENCE = 4.0
"""A job may wait this many times its own length before a shorter one that came later no longer goes first."""
AFFINITY = 10.0
"""A card changes its model when that is due by more than so many times the load: changing costs a tenth of its time at most."""
