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

{{- define "polyphony.joinTokenSecret" -}}
{{- default (printf "%s-join-token" (include "polyphony.fullname" .)) .Values.joinToken.existingSecret -}}
{{- end -}}

{{- define "polyphony.hostKeySecret" -}}
{{- default (printf "%s-host-key" (include "polyphony.fullname" .)) .Values.hostKey.existingSecret -}}
{{- end -}}

{{- define "polyphony.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* Nothing is rendered that would listen unencrypted without a person's word. */ -}}
{{- define "polyphony.insecureOnly" -}}
{{- if not .Values.lab.insecure -}}
{{- fail "\n\nPolyphony cannot be installed safely in a cluster yet: in a pod it has to listen beyond loopback, and the mutual TLS that this needs does not exist yet. In a closed lab network, where prompts, answers, weights and the join token may travel unencrypted, say so with --set lab.insecure=true.\n" -}}
{{- end -}}
{{- end -}}
