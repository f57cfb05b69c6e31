"""Every change of `processing_status` after the Intake, a file for each of those who make them."""
