"""Tests of one whole farm, which they share: a start takes ten seconds of a core. In several processes one takes them all, in this order.

Each leaves the farm able to work, whatever it kills; `test_two_pcs.py`, the last, adds a PC. None may count on being alone with its jobs.
"""
