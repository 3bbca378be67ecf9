"""Metrics of each round, to a tracker of experiments.

feed ──> fl.round.completed ──> what the round measured, without names ──> sink ──> cursor
"""
