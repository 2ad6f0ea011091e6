"""What runs on each PC of the farm: inventory of its cards, the card workers, and the models they render with."""
