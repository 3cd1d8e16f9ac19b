"""The edges: everything that talks to the outside of the operator's process.

``watching`` feeds the ``cache``, a change puts a key into the ``queue``, the ``reconciler`` takes
a snapshot, asks the pure `tidegate.plan` what to do and has ``apply`` do it through ``kube``.
"""
