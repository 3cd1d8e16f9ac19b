"""The embedded cluster: one real Kubernetes node built from native processes.

`python -m e2e.cluster` is the command line; `e2e.cluster.control_plane` is the part that the
contract tests use. Nothing here is imported by the operator.
"""
