"""From a trained model to one that meets its objective: convert, optimise, prove, tune, publish.

A package of its own with dependencies of its own (the extra ``preparation``): the operator never
imports it.
"""
