"""Training of networks that are, or are to be, spiking: `snnc.tune.run.tune`, which users know as `snnc.tune`."""
