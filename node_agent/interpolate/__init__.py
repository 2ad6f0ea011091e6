"""Interpolators: between the frames of a model's clip they put new ones. One file each; `base` has the protocol."""
