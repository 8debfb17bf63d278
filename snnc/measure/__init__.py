"""Measuring networks: accuracy, spikes and operations, and the fewest steps that do."""
