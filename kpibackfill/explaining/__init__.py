"""Explaining numbers: how a computed value comes about, and which definition the stored ones followed.

Everything in here works from aggregates: what leaves these functions are counts, never a person or an answer.
"""
