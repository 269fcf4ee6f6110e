"""Used by every part: checks, digests, named randomness, nested fields, meshes."""
