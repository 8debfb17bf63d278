"""Spiking networks as NIR files."""
