"""Explaining numbers: how a value is computed, and which definition the stored values follow.

Everything here works with aggregates: these functions return counts, never a person or an answer.
"""
