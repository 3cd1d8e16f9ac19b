"""What a ModelDeployment becomes: pure functions from specs to manifests."""
