"""What the farm knows before anyone measures: presets, models and cards, as TOML data with their loaders."""
