"""Running spiking graphs."""
