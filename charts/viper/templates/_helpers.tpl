{{/* Start of all names: at most 40 characters, so that every suffix fits. */}}
{{- define "viper.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains "viper" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-viper" .Release.Name | trunc 40 | trimSuffix "-" -}}
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
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
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

{{/* What every pod spec starts with: root, and the component's values. */}}
{{- define "viper.pod" -}}
{{- $root := index . 0 -}}
{{- $own := index . 1 -}}
securityContext:
  {{- include "viper.podSecurity" $root | nindent 2 }}
enableServiceLinks: false
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
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

{{/* What the schema cannot say in words that help. */}}
{{- define "viper.validate" -}}
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
{{- if and $profile.create (not $profile.spec) }}
{{- fail (printf "profiles.%s.create is true, but profiles.%s.spec says nothing; docs/reference.md lists the fields of a profile" $name $name) }}
{{- end }}
{{- end }}
{{- end -}}
