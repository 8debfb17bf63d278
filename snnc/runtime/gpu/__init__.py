"""What runs fast on NVIDIA's GPUs."""
