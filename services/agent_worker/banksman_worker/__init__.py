"""The agent worker: carries runs from claim to pause or end, and executes only what was approved."""
