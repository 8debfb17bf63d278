"""Running graphs on calibration data, and what is learnt from it."""
