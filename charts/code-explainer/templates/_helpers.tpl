{{- define "code-explainer.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* Short enough for the suffixes that the parts get. */}}
{{- define "code-explainer.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 44 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 44 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 44 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Takes (dict "root" $ "component" "server"). */}}
{{- define "code-explainer.selector" -}}
app.kubernetes.io/name: {{ include "code-explainer.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "code-explainer.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "code-explainer.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: code-explainer
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "code-explainer.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "code-explainer.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Takes (dict "image" .Values.image "tag" DEFAULT). The tag stays for those who read it: the digest decides. */}}
{{- define "code-explainer.image" -}}
{{- printf "%s:%s" .image.repository (default .tag .image.tag) }}
{{- with .image.digest }}{{ printf "@%s" . }}{{ end }}
{{- end }}

{{- define "code-explainer.device" -}}
{{- if and .Values.gpu.enabled (eq .Values.server.device "auto") }}cuda{{ else }}{{ .Values.server.device }}{{ end }}
{{- end }}

{{- define "code-explainer.modelPath" -}}
{{- if eq .Values.model.source "image" }}{{ .Values.model.path }}{{ else }}/models/{{ trimPrefix "/" .Values.model.path }}{{ end }}
{{- end }}

{{/* After the drain the server says goodbye to clients, Redis and the trace collector: at most 10 s. */}}
{{- define "code-explainer.gracePeriod" -}}
{{- add .Values.server.preStopSeconds .Values.server.graceSeconds .Values.server.drainSeconds 15 }}
{{- end }}

{{- define "code-explainer.redisSecret" -}}
{{- default (printf "%s-redis" (include "code-explainer.fullname" .)) .Values.redis.existingSecret }}
{{- end }}

{{/* A random value that upgrades keep. Takes (dict "root" $ "secret" NAME "key" KEY). */}}
{{- define "code-explainer.keptSecret" -}}
{{- $old := lookup "v1" "Secret" .root.Release.Namespace .secret }}
{{- if and $old (hasKey (default dict $old.data) .key) }}
{{- index $old.data .key }}
{{- else }}
{{- randAlphaNum 32 | b64enc }}
{{- end }}
{{- end }}

{{- define "code-explainer.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "code-explainer.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
