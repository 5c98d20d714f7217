"""Real servers and the three services on one machine, under one supervisor, from one command."""
