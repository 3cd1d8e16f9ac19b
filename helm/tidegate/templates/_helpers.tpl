{{/* The chart's name, for labels. */}}
{{- define "tidegate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Prefix of every object's name: at most 50 characters, so that suffixes fit into 63. */}}
{{- define "tidegate.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := include "tidegate.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Name of the operator's Deployment, Lease, roles and bindings. */}}
{{- define "tidegate.operator" -}}
{{ include "tidegate.fullname" . }}-operator
{{- end }}

{{/* Labels that select the operator's pods; never changed, since a Deployment's selector is fixed. */}}
{{- define "tidegate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tidegate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* Labels that select the dashboard's pod. */}}
{{- define "tidegate.dashboardLabels" -}}
app.kubernetes.io/name: {{ include "tidegate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: dashboard
{{- end }}

{{/* Labels that select the pod of the quality component. */}}
{{- define "tidegate.qualityLabels" -}}
app.kubernetes.io/name: {{ include "tidegate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: quality
{{- end }}

{{/* Labels of every object. */}}
{{- define "tidegate.labels" -}}
app.kubernetes.io/name: {{ include "tidegate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tidegate
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* An image's name. Takes a list: the root context and a block {repository, tag, digest}. */}}
{{- define "tidegate.image" -}}
{{- $root := index . 0 }}
{{- $image := index . 1 }}
{{- with $root.Values.global.imageRegistry }}{{ trimSuffix "/" . }}/{{ end }}
{{- $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "tidegate.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "tidegate.operator" .) }}
{{- end }}

{{/* Pull secrets of the operator's own pods, as a list under its key; empty without any. */}}
{{- define "tidegate.imagePullSecrets" -}}
{{- with concat .Values.global.imagePullSecrets .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Pod and container settings that Pod Security "restricted" asks for. */}}
{{- define "tidegate.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "tidegate.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/*
What the platform team sets once for all models: the file that the operator reads. Keys are those
of its own settings type; unset ones stay out, so that the operator's defaults hold.
*/}}
{{- define "tidegate.platform" -}}
images:
  triton: {{ include "tidegate.image" (list . .Values.images.triton) | quote }}
  envoy: {{ include "tidegate.image" (list . .Values.images.envoy) | quote }}
  fetch: {{ include "tidegate.image" (list . .Values.images.fetch) | quote }}
{{- with .Values.profiles }}
profiles:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.defaultProfile }}
defaultProfile: {{ . | quote }}
{{- end }}
{{- with .Values.admission.allowedServiceAccounts }}
allowedServiceAccounts:
  {{- toYaml . | nindent 2 }}
{{- end }}
fetch:
  {{- with .Values.fetch }}
  allowedSchemes: {{ toJson .allowedSchemes }}
  allowedHosts: {{ toJson .allowedHosts }}
  allowPrivateAddresses: {{ toJson .allowPrivateAddresses }}
  allowPythonBackend: {{ .allowPythonBackend }}
  maxBytes: {{ int64 .maxBytes }}
  maxFiles: {{ int64 .maxFiles }}
  {{- with .verify }}
  verify: {{ toJson . }}
  {{- end }}
  {{- end }}
gpuToleration: {{ .Values.gpuToleration }}
operatorNamespace: {{ .Release.Namespace | quote }}
metricsNamespaces: {{ toJson .Values.metrics.namespaces }}
preStopSeconds: {{ int64 .Values.drain.preStopSeconds }}
exitTimeoutSeconds: {{ int64 .Values.drain.exitTimeoutSeconds }}
{{- end }}

{{/*
Values that contradict each other and that a schema cannot see. Every message says what was set,
why it cannot be, and what to set instead.
*/}}
{{- define "tidegate.validate" -}}
{{- if and .Values.defaultProfile (not (hasKey .Values.profiles .Values.defaultProfile)) }}
{{- fail (printf "defaultProfile is %q, but profiles has no such name (it has: %s). Add it to profiles, or set defaultProfile to one of them." .Values.defaultProfile (keys .Values.profiles | sortAlpha | join ", " | default "none")) }}
{{- end }}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) }}
{{- fail "serviceAccount.create is false and serviceAccount.name is empty: the operator would run as the namespace's default account. Set serviceAccount.name to the account to use, or serviceAccount.create to true." }}
{{- end }}
{{- if not .Values.admission.enabled }}
{{- range $key := list "allowedImages" "allowedSources" }}
{{- if index $.Values.admission $key }}
{{- fail (printf "admission.%s is set and admission.enabled is false: nothing would enforce it. Set admission.enabled to true, or empty admission.%s." $key $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- if not .Values.networkPolicy.enabled }}
{{- if .Values.networkPolicy.ingressFrom }}
{{- fail "networkPolicy.ingressFrom is set and networkPolicy.enabled is false: nothing would enforce it. Set networkPolicy.enabled to true, or empty networkPolicy.ingressFrom." }}
{{- end }}
{{- if .Values.networkPolicy.egress.enabled }}
{{- fail "networkPolicy.egress.enabled is true and networkPolicy.enabled is false: nothing would enforce it. Set networkPolicy.enabled to true, or networkPolicy.egress.enabled to false." }}
{{- end }}
{{- end }}
{{- if and .Values.dashboard.ingressFrom (not .Values.networkPolicy.enabled) }}
{{- fail "dashboard.ingressFrom is set and networkPolicy.enabled is false: nothing would enforce it. Set networkPolicy.enabled to true, or empty dashboard.ingressFrom." }}
{{- end }}
{{- if and .Values.quality.ingressFrom (not .Values.networkPolicy.enabled) }}
{{- fail "quality.ingressFrom is set and networkPolicy.enabled is false: nothing would enforce it. Set networkPolicy.enabled to true, or empty quality.ingressFrom." }}
{{- end }}
{{- if and .Values.metrics.prometheusRule.enabled (not .Values.metrics.podMonitor.enabled) }}
{{- fail "metrics.prometheusRule.enabled is true and metrics.podMonitor.enabled is false: the alerts are about what that PodMonitor scrapes, and would fire for ever. Set metrics.podMonitor.enabled to true, or metrics.prometheusRule.enabled to false." }}
{{- end }}
{{- if and .Values.metrics.dashboards.enabled (not .Values.metrics.dashboards.labels) }}
{{- fail "metrics.dashboards.enabled is true and metrics.dashboards.labels is empty: Grafana's sidecar would find no dashboard. Set metrics.dashboards.labels to those that it looks for, or metrics.dashboards.enabled to false." }}
{{- end }}
{{- if .Values.tests.inference.enabled }}
{{- range $key := list "url" "model" }}
{{- if not (index $.Values.tests.inference $key) }}
{{- fail (printf "tests.inference.enabled is true and tests.inference.%s is empty: there is nothing to ask. Set tests.inference.url and tests.inference.model to those of a ModelDeployment that serves, or tests.inference.enabled to false." $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.tests.inference.expect (not .Values.tests.inference.request) }}
{{- fail "tests.inference.expect is set and tests.inference.request is empty: zeros would be sent and a given answer expected. Set tests.inference.request too, or empty tests.inference.expect." }}
{{- end }}
{{- end }}
