"""The approval gateway: takes runs in, shows people what is asked and signs what they decide."""
