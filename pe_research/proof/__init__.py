"""Texts and digests of programs, which show that two results were computed alike."""
