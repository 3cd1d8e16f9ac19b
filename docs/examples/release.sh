#!/bin/sh
# From a trained model to promoted, in one command; ends as `tidegate wait` does: 0 promoted,
# 3 rolled back, 4 not decided yet.
#
#   MODEL=clf.joblib DATA=digits.npz SLO=p99=50ms NAME=digits STORE=s3://models/digits sh release.sh
#
# A model of an MLflow registry, first:
#   mlflow artifacts download --artifact-uri models:/digits/3 --dst-path . && MODEL=model.pkl
set -eu
: "${MODEL:?the trained model}" "${DATA:?held-out samples}" "${SLO:?such as p99=50ms}"
: "${NAME:?of the ModelDeployment}" "${STORE:?s3://bucket/prefix}"
out=${OUT:-prepared}

tidegate prepare --model "$MODEL" --data "$DATA" --slo "$SLO" --name "$NAME" \
	--publish "$STORE" --secret "${SECRET:-models-read}" --out "$out"
kubectl apply --server-side -f "$out/manifests/golden.yaml"
kubectl apply --server-side -f "$out/manifests/modeldeployment.yaml"
code=0
kubectl tidegate wait "$NAME" --for=promoted --timeout="${LONGEST:-2h}" || code=$?
if [ "$code" -ne 0 ]; then kubectl tidegate explain "$NAME" || true; fi
exit "$code"
