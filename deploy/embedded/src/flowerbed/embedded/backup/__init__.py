"""Backups of a running stack, and stacks made from them.

cut ──> tables ──┐                              ┌──> migrations ──> tables
submissions ─────┼──> manifest.json, last ──────┼──> objects
secrets ─────────┤    (without it: no backup)   ├──> submissions
objects ─────────┘                              └──> secrets
"""
