"""Results of all stages in, one HTML file out."""
