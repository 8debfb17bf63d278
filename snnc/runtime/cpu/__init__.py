"""What runs fast on CPUs."""
