"""Fixtures for the tests of your own agents: decide by rule, assert what was asked."""
