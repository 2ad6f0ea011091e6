"""Tests of models and engine on small networks, by torch. In several processes one takes them all: what they share is made once."""
