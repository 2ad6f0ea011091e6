"""The `farm` command: one module per group of verbs, thin; heavy imports wait until a verb needs them."""
