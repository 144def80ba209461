"""`distcls verify-resume`: compares runs that were interrupted with one that was not."""
