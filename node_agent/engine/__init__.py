"""The render engine: weights by memory map, streamed through a ring on the card; layers in exact pieces; parts placed by stage.

One engine for every model: it knows modules and their sizes, not what they compute. Needs torch; which plan to follow is decided
without torch in `farm.planning.plans`.
"""
