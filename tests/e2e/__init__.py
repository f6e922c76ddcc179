"""Tests in a real browser against a real studio, which is stopped when the last of them has run."""
