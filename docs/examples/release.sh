#!/bin/sh
# From a trained model to promoted, in one command; ends as `tidegate wait` does: 0 promoted,
# 3 rolled back, 4 not decided yet.
#
#   MODEL=clf.joblib DATA=digits.npz SLO=p99=50ms NAME=digits STORE=s3://models/digits sh release.sh
#
# MODEL may be a version of an MLflow registry, as MLflow names it: models:/digits/3, or
# models:/digits@champion. Its files come to prepared.source, by mlflow (mlflow-skinny is enough) from
# MLFLOW_TRACKING_URI. FILE says which of them is the model; DATA may be another.
#
# POLICY is a patch with what is yours in the manifest: gateway, steps, bake. OPTIONS are more
# options of `tidegate prepare`.
set -eu
: "${MODEL:?the trained model}" "${DATA:?held-out samples}" "${SLO:?such as p99=50ms}"
: "${NAME:?of the ModelDeployment}" "${STORE:?s3://bucket/prefix}"
out=${OUT:-prepared}

case $MODEL in
models:/*)
	rm -rf "$out.source"
	mlflow artifacts download --artifact-uri "$MODEL" --dst-path "$out.source"
	MODEL=$out.source/${FILE:-model.pkl}
	;;
esac

# shellcheck disable=SC2086  # several options
tidegate prepare --model "$MODEL" --data "$DATA" --slo "$SLO" --name "$NAME" \
	--publish "$STORE" --secret "${SECRET:-models-read}" --out "$out" ${OPTIONS:-}

rm -rf "$out.manifests"
cp -r "$out/manifests" "$out.manifests"
printf 'resources: [golden.yaml, modeldeployment.yaml]\n' >"$out.manifests/kustomization.yaml"
if [ -n "${POLICY:-}" ]; then
	cp "$POLICY" "$out.manifests/policy.yaml"
	printf 'patches: [{path: policy.yaml}]\n' >>"$out.manifests/kustomization.yaml"
fi
kubectl apply --server-side -k "$out.manifests"

code=0
kubectl tidegate wait "$NAME" --for=promoted --timeout="${LONGEST:-2h}" || code=$?
if [ "$code" -ne 0 ]; then kubectl tidegate explain "$NAME" || true; fi
exit "$code"
