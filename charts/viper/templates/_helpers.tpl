{{/*
Start of all names: at most 40 characters, so that every suffix fits. A longer one is cut and ends in a digest of itself, so
that no two are the same; a release that is there under a name that was only cut keeps it.
*/}}
{{- define "viper.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-viper" .Release.Name) (contains "viper" .Release.Name) -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if le (len $name) 40 -}}
{{- $name -}}
{{- else -}}
{{- $cut := $name | trunc 40 | trimSuffix "-" -}}
{{- $there := lookup "apps/v1" "Deployment" .Release.Namespace (printf "%s-operator" $cut) -}}
{{- $digest := printf "%s-%s" ($name | trunc 31 | trimSuffix "-") (sha256sum $name | trunc 8) -}}
{{- ternary $cut $digest (eq .Release.Name (dig "metadata" "labels" "app.kubernetes.io/instance" "" $there)) -}}
{{- end -}}
{{- end -}}

{{/* Labels that select the pods of one component: list of root and component. */}}
{{- define "viper.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: viper
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "viper.labels" -}}
{{- $root := index . 0 -}}
{{ include "viper.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: viper
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Image reference: list of root and the key under .Values.images. */}}
{{- define "viper.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.images (index . 1) -}}
{{- $place := printf "%s/%s" ($root.Values.images.registry | default "") $image.repository | trimPrefix "/" -}}
{{- if $image.digest -}}
{{ $place }}@{{ $image.digest }}
{{- else -}}
{{ $place }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "viper.bundledStore" -}}{{ if not .Values.store.uri }}true{{ end }}{{- end -}}
{{- define "viper.bundledTracking" -}}{{ if not .Values.tracking.uri }}true{{ end }}{{- end -}}

{{/* The store as viper.store.open_store takes it. */}}
{{- define "viper.store" -}}
{{- if include "viper.bundledStore" . -}}
s3://{{ .Values.minio.bucket }}?endpoint=http://{{ include "viper.fullname" . }}-minio:9000
{{- else -}}
{{ .Values.store.uri }}
{{- end -}}
{{- end -}}

{{- define "viper.tracking" -}}
{{ .Values.tracking.uri | default (printf "http://%s-mlflow:5000" (include "viper.fullname" .)) }}
{{- end -}}

{{/* The Secret with the store's AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. */}}
{{- define "viper.storeSecret" -}}
{{- if .Values.store.existingSecret -}}
{{ .Values.store.existingSecret }}
{{- else if include "viper.bundledStore" . -}}
{{ include "viper.fullname" . }}-store
{{- else -}}
{{- fail "store.uri is set, so that the credentials are yours: create a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the release's namespace and name it in store.existingSecret" -}}
{{- end -}}
{{- end -}}

{{/* The Secret with the operator's own credentials of the store, which only read. */}}
{{- define "viper.readerSecret" -}}
{{- if .Values.store.readerExistingSecret -}}
{{ .Values.store.readerExistingSecret }}
{{- else if include "viper.bundledStore" . -}}
{{ include "viper.fullname" . }}-store-reader
{{- else -}}
{{ include "viper.storeSecret" . }}
{{- end -}}
{{- end -}}

{{- define "viper.rootSecret" -}}
{{ .Values.minio.rootExistingSecret | default (printf "%s-minio-root" (include "viper.fullname" .)) }}
{{- end -}}

{{/* Environment with the store's credentials, by reference. */}}
{{- define "viper.storeEnv" -}}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ include "viper.storeSecret" . }}, key: AWS_ACCESS_KEY_ID}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ include "viper.storeSecret" . }}, key: AWS_SECRET_ACCESS_KEY}}
{{- end -}}

{{/* The same for the operator: list of root and what the names of the variables begin with. */}}
{{- define "viper.readerEnv" -}}
{{- $secret := include "viper.readerSecret" (index . 0) -}}
- name: {{ index . 1 }}_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: AWS_ACCESS_KEY_ID}}
- name: {{ index . 1 }}_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: AWS_SECRET_ACCESS_KEY}}
{{- end -}}

{{- define "viper.rootEnv" -}}
- name: MINIO_ROOT_USER
  valueFrom: {secretKeyRef: {name: {{ include "viper.rootSecret" . }}, key: MINIO_ROOT_USER}}
- name: MINIO_ROOT_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ include "viper.rootSecret" . }}, key: MINIO_ROOT_PASSWORD}}
{{- end -}}

{{/* Pod and container settings of the restricted Pod Security Standard; the same everywhere. */}}
{{- define "viper.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "viper.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Labels and annotations of a pod: list of root, component, and the component's values. */}}
{{- define "viper.podMetadata" -}}
{{- $own := index . 2 -}}
labels:
  {{- include "viper.labels" . | nindent 2 }}
  {{- with $own.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $own.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where a pod may run, as a dictionary: list of a component's values, and of those that count where it says nothing. */}}
{{- define "viper.placement" -}}
{{- $found := dict -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" -}}
{{- range $values := $ -}}
{{- if and (index $values $key) (not (hasKey $found $key)) }}{{ $_ := set $found $key (index $values $key) }}{{ end -}}
{{- end -}}
{{- end -}}
{{ toJson $found }}
{{- end -}}

{{/* What every pod spec starts with: root, the component's values, and those that say where it runs if it does not. */}}
{{- define "viper.pod" -}}
{{- $root := index . 0 -}}
securityContext:
  {{- include "viper.podSecurity" $root | nindent 2 }}
enableServiceLinks: false
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with include "viper.placement" (rest .) | fromJson }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What `kubectl viper` makes its Jobs from, as JSON; the operator itself only carries it. */}}
{{- define "viper.registryJobs" -}}
{{- $own := .Values.registryJobs -}}
{{- $placement := include "viper.placement" (list $own .Values.operator) | fromJson -}}
{{- $said := dict "resources" $own.resources "env" $own.env "labels" $own.podLabels "annotations" $own.podAnnotations "placement" $placement -}}
{{- range $key, $value := $said }}{{ if not $value }}{{ $_ := unset $said $key }}{{ end }}{{ end -}}
{{ toJson $said }}
{{- end -}}

{{/* Port of an http(s) URL. */}}
{{- define "viper.port" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $port | default (ternary "80" "443" (eq $url.scheme "http")) -}}
{{- end -}}

{{/* Peers of an egress rule: a list of CIDRs, nothing (any address) when it is empty. */}}
{{- define "viper.cidrs" -}}
{{- with . }}
to:
  {{- range . }}
  - ipBlock: {cidr: {{ . }}}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Spec of a PersistentVolumeClaim. */}}
{{- define "viper.claim" -}}
accessModes:
  {{- toYaml .accessModes | nindent 2 }}
{{- with .storageClassName }}
storageClassName: {{ . }}
{{- end }}
resources: {requests: {storage: {{ .size }}}}
{{- end -}}

{{/* What is no chart without: what values.yaml has that is not empty, and the parts that hold it. */}}
{{- define "viper.needed" -}}
images images.pullPolicy
images.operator images.operator.repository images.cpu images.cpu.repository images.minio images.minio.repository
operator operator.replicas operator.logLevel operator.podTemplates operator.serviceAccount
hooks tests registryJobs store tracking
minio minio.bucket minio.persistence minio.persistence.size minio.persistence.accessModes minio.persistence.retain
mlflow mlflow.persistence mlflow.persistence.size mlflow.persistence.accessModes mlflow.persistence.retain
crds crds.install userRoles userRoles.create
networkPolicy networkPolicy.enabled networkPolicy.dns networkPolicy.apiServer networkPolicy.apiServer.ports
podDisruptionBudget podDisruptionBudget.enabled
metrics metrics.serviceMonitor metrics.serviceMonitor.enabled metrics.serviceMonitor.interval
metrics.dashboard metrics.dashboard.enabled
{{- end -}}

{{/* Variables that the chart sets itself, in one of its pods or another. */}}
{{- define "viper.ownVariables" -}}
AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY HOME MINIO_ROOT_PASSWORD MINIO_ROOT_USER
VIPER_CREDENTIALS_SECRET VIPER_HEALTH_PORT VIPER_IDENTITY VIPER_LEASE VIPER_LOG_LEVEL
VIPER_METRICS VIPER_METRICS_PORT VIPER_NAMESPACE VIPER_POD_TEMPLATES VIPER_PROTECTED_SECRETS
VIPER_READER_ACCESS_KEY_ID VIPER_READER_SECRET_ACCESS_KEY VIPER_REGISTRY_JOBS VIPER_STAGE_IMAGE VIPER_STORE
VIPER_TRACKING
{{- end -}}

{{/* What the schema cannot say in words that help. Every template begins with it, so that none meets what is not there. */}}
{{- define "viper.validate" -}}
{{- range $path := include "viper.needed" . | replace "\n" " " | splitList " " }}
{{- $at := $.Values }}
{{- range $key := splitList "." $path }}{{ $at = index $at $key }}{{ end }}
{{- if kindIs "invalid" $at }}
{{- fail (printf "%s is null: leave it out of your values to have the chart's default (an upgrade with --reuse-values lacks what is new: --reset-then-reuse-values has it)" $path) }}
{{- end }}
{{- end }}
{{- if not (or .Values.images.minio.tag .Values.images.minio.digest) }}
{{- fail "images.minio.tag is null or empty: name a release of MinIO, or leave it out of your values to have the chart's default" }}
{{- end }}
{{- $own := include "viper.ownVariables" . | replace "\n" " " | splitList " " }}
{{- range $part := list "operator" "registryJobs" }}
{{- range (index $.Values $part).env }}
{{- if has .name $own }}
{{- fail (printf "%s.env: %s is set by the chart itself; take it out" $part .name) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $part := list "operator" "hooks" "tests" "registryJobs" "minio" "mlflow" }}
{{- range $name, $_ := (index $.Values $part).podLabels }}
{{- if regexMatch "^(app[.]kubernetes[.]io|helm[.]sh|viper[.]dev)/" $name }}
{{- fail (printf "%s.podLabels: %s is the chart's own, by which pods are found; take it out" $part $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- $fullname := include "viper.fullname" . }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $fullname) }}
{{- fail (printf "the release's name %q cannot begin the names of its Services, which are letters, digits and dashes, a letter first: choose another name, or set fullnameOverride" .Release.Name) }}
{{- end }}
{{- with .Values.store.uri }}
{{- if not (regexMatch "^s3://[a-z0-9][-a-z0-9.]{1,61}[a-z0-9](/[^?#@\\s]*)?([?]endpoint=https?://[^/?#@\\s]+)?$" .) }}
{{- fail (printf "store.uri is %q: write s3://bucket/prefix?endpoint=https://host:port (without ?endpoint= it is AWS); credentials belong in the Secret that store.existingSecret names" .) }}
{{- end }}
{{- end }}
{{- with .Values.tracking.uri }}
{{- if not (regexMatch "^https?://[^/?#@\\s]+(/[^?#@\\s]*)?$" .) }}
{{- fail (printf "tracking.uri is %q: write https://host:port of an MLflow server; credentials (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD) belong in the Secret that store.existingSecret names" .) }}
{{- end }}
{{- end }}
{{- range $name, $profile := .Values.profiles }}
{{- if and $profile $profile.create (not $profile.spec) }}
{{- fail (printf "profiles.%s.create is true, but profiles.%s.spec says nothing; docs/reference.md lists the fields of a profile" $name $name) }}
{{- end }}
{{- end }}
{{- end -}}
