"""The edges: everything that talks to the outside of the operator's process.

``watching`` feeds the ``cache``, a change puts a key into the ``queue``, a ``worker`` takes it, the
``reconciler`` takes a snapshot, asks the pure `tidegate.plan` what to do, has ``apply`` do it
through ``kube``, and ``reporting`` tell it. What is asked of pods and nodes is asked beside the
passes (``measuring``, ``golden``, ``load``, ``explaining``); a pass takes what is known.
"""
