"""What every part uses: checks, digests, named randomness, nested fields, meshes."""
