"""What an output is worth: the paper's equations 5 to 7, the sentences that they compare, their calibration."""
