"""`distcls verify-resume`: runs that are interrupted, held against one that is not."""
