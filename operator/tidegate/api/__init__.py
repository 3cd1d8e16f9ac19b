"""The ModelDeployment resource: its types, units, names and CRD."""
