"""Explaining numbers: how a computed value comes about, and which definition the stored values follow.

Everything here works with aggregates: these functions return counts, never a person or an answer.
"""
