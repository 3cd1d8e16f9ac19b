"""What is handed to the operator: model files, manifest, golden requests, a report.

`manifest`, `golden` and `report` make documents; `folder` puts them in their place, and `s3`, `oci`
and `mlflow` send them, by the steps of `target`, so that nothing is published half; `signing` signs
the files, and `publishing` puts all of it in order.
"""
