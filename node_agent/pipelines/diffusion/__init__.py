"""What diffusion models need torch for. Imported once a model is opened, never to list the models."""
