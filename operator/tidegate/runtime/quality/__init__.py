"""The quality component: takes samples and labels in, keeps counts, and answers gates.

A process of its own with few rights (it reads ModelDeployments and patches their status), so that
the operator neither listens to strangers nor keeps their data.
"""
