"""The learning half: features of measures, encoders, training, calibration and evaluation."""
