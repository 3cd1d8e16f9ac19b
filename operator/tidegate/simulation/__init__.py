"""A simulated cluster in which the law of `tidegate.autoscaling`, and other laws, scale a model.

Pure but for the caller's seed: the same arguments give the same result. It stands beside the
operator, which never imports it.
"""
