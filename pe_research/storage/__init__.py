"""Files on a disk or in a bucket: written whole, owned by one process, copied near."""
