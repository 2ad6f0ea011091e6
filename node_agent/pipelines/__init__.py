"""The models, one file each, behind the protocol in `base`."""
