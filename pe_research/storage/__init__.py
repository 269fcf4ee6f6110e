"""Files on a disk or in a bucket: callers outside of this folder need not know which."""
