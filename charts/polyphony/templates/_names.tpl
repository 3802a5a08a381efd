{{/* Names and labels that every object shares. */}}

{{- define "polyphony.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* Short enough for the longest suffix, -dashboard-deployment. */ -}}
{{- define "polyphony.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 42 | trimSuffix "-" -}}
{{- else if contains (include "polyphony.name" .) .Release.Name -}}
{{- .Release.Name | trunc 42 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "polyphony.name" .) | trunc 42 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Cluster-wide objects of two releases must not meet. */ -}}
{{- define "polyphony.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "polyphony.fullname" .) -}}
{{- end -}}

{{- define "polyphony.selectorLabels" -}}
app.kubernetes.io/name: {{ include "polyphony.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "polyphony.labels" -}}
{{ include "polyphony.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: polyphony
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "polyphony.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "polyphony.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.create is false: name your account in serviceAccount.name" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "polyphony.authoritySecret" -}}
{{- default (printf "%s-authority" (include "polyphony.fullname" .)) .Values.authority.existingIssuerSecret -}}
{{- end -}}

{{- define "polyphony.metricsTokenSecret" -}}
{{- default (printf "%s-metrics-token" (include "polyphony.fullname" .)) .Values.metrics.token.existingSecret -}}
{{- end -}}

{{- define "polyphony.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* How Prometheus knows the controller, and shows who it is. */ -}}
{{- define "polyphony.scrapeTls" -}}
tlsConfig:
  serverName: controller.gateway.{{ .Values.authority.trustDomain }}
  ca:
    secret:
      name: {{ include "polyphony.authoritySecret" . }}
      key: ca.crt
authorization:
  credentials:
    name: {{ include "polyphony.metricsTokenSecret" . }}
    key: token
{{- end -}}
