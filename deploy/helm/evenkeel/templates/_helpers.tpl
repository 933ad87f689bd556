{{- define "evenkeel.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The release's name where it says evenkeel already, as of `helm install evenkeel …`. */}}
{{- define "evenkeel.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "evenkeel.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "evenkeel.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "evenkeel.selectorLabels" -}}
app.kubernetes.io/name: {{ include "evenkeel.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "evenkeel.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "evenkeel.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "evenkeel.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* A number as it was written: large ones are floats by now, and would be shown as 1e+06. */}}
{{- define "evenkeel.scalar" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* The pods' annotations; of the chart's own, a user's wins. */}}
{{- define "evenkeel.podAnnotations" -}}
{{- $own := dict "kubectl.kubernetes.io/default-container" "agent" }}
{{- if .Values.metrics.annotations }}
{{- $_ := set $own "prometheus.io/scrape" "true" }}
{{- $_ := set $own "prometheus.io/port" (toString .Values.ports.metrics) }}
{{- $_ := set $own "prometheus.io/path" "/metrics" }}
{{- end }}
{{- if semverCompare "<1.30-0" .Capabilities.KubeVersion.Version }}
{{- $_ := set $own "container.apparmor.security.beta.kubernetes.io/agent" (include "evenkeel.appArmorAnnotation" .Values.appArmorProfile) }}
{{- end }}
{{- toYaml (merge (deepCopy .Values.podAnnotations) $own) }}
{{- end }}

{{/* An AppArmor profile as the annotation of before Kubernetes 1.30 names it. */}}
{{- define "evenkeel.appArmorAnnotation" -}}
{{- if eq .type "RuntimeDefault" }}runtime/default
{{- else if eq .type "Localhost" }}localhost/{{ .localhostProfile }}
{{- else }}unconfined
{{- end }}
{{- end }}

{{/* The port of the admin endpoint; nothing where it is a unix socket. */}}
{{- define "evenkeel.adminPort" -}}
{{- if not (include "evenkeel.adminFolder" .) }}
{{- .Values.agent.admin | default "127.0.0.1:15800" | splitList ":" | last }}
{{- end }}
{{- end }}

{{/* The folder of the admin endpoint's unix socket; nothing where it is a port. */}}
{{- define "evenkeel.adminFolder" -}}
{{- if hasPrefix "unix:" (toString .Values.agent.admin) }}
{{- trimPrefix "unix:" .Values.agent.admin | dir }}
{{- end }}
{{- end }}

{{/* What no schema can say. */}}
{{- define "evenkeel.checked" -}}
{{- $ports := list (toString .Values.ports.readiness) (toString .Values.ports.metrics) }}
{{- $names := "ports.readiness and ports.metrics are to be two" }}
{{- with include "evenkeel.adminPort" . }}
{{- $ports = prepend $ports . }}
{{- $names = "agent.admin, ports.readiness and ports.metrics are to be three" }}
{{- end }}
{{- if ne (len (uniq $ports)) (len $ports) }}
{{- fail (printf "%s ports, and are %s" $names (join ", " $ports)) }}
{{- end }}
{{- end }}
