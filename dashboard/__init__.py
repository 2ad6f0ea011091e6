"""The head's face: HTTP API and pages. Reads the store, writes requests only, streams the scheduler's feed."""
