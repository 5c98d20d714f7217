"""The notifier: tells reviewers, over e-mail and other channels, that something waits for them."""
