"""What is handed to the operator: model files, manifest, golden requests, a report.

`manifest`, `golden` and `report` make documents; `folder` and `s3` put them where they belong, so
that nothing is published half.
"""
