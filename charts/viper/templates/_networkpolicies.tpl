{{- /* Rules that several components share. */}}
{{- define "viper.egressDNS" -}}
- to:
    {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end }}
{{- define "viper.egressStore" -}}
{{- if include "viper.bundledStore" . -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "viper.selector" (list . "minio") | nindent 10 }}
  ports: [{protocol: TCP, port: 9000}]
{{- else -}}
{{- $query := (urlParse .Values.store.uri).query -}}
{{- $endpoint := regexFind "endpoint=[^&]+" $query | trimPrefix "endpoint=" | default "https://aws" -}}
- ports: [{protocol: TCP, port: {{ include "viper.port" $endpoint }}}]
  {{- include "viper.cidrs" .Values.networkPolicy.storeCidrs | nindent 2 }}
{{- end -}}
{{- end }}
{{- define "viper.egressTracking" -}}
{{- if include "viper.bundledTracking" . -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "viper.selector" (list . "mlflow") | nindent 10 }}
  ports: [{protocol: TCP, port: 5000}]
{{- else -}}
- ports: [{protocol: TCP, port: {{ include "viper.port" .Values.tracking.uri }}}]
  {{- include "viper.cidrs" .Values.networkPolicy.trackingCidrs | nindent 2 }}
{{- end -}}
{{- end }}
{{- /* Pods that run stages: the operator makes them, so that they carry its labels and not the release's. */}}
{{- define "viper.stageSelector" -}}
app.kubernetes.io/name: viper
app.kubernetes.io/component: stage
app.kubernetes.io/managed-by: viper-operator
{{- end -}}
{{- define "viper.nodeSelector" -}}
{{ include "viper.stageSelector" . }}
viper.dev/ray: "true"
{{- end -}}
