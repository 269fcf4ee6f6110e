"""A campaign that kills commands, damages what they read and fills their disks."""
