"""What is done to the scans of each known data set: one file each."""
