"""Images in, clinicians' judgements out: visual Turing tests."""
