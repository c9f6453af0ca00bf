"""Many runs in, one table out."""
