{{- define "tidegate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "tidegate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "tidegate.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "tidegate.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "tidegate.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end }}

{{- define "tidegate.selector" -}}
app.kubernetes.io/name: {{ include "tidegate.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "tidegate.labels" -}}
{{ include "tidegate.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: tidegate
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tidegate.image" -}}
{{- $registry := default .image.registry .root.Values.global.imageRegistry -}}
{{- $name := ternary .image.repository (printf "%s/%s" $registry .image.repository) (empty $registry) -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end }}

{{- define "tidegate.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tidegate.serviceAccount" -}}
{{- if .Values.service.serviceAccount.create -}}
{{- default (include "tidegate.fullname" .) .Values.service.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.service.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "tidegate.operatorServiceAccount" -}}
{{- if .Values.operator.serviceAccount.create -}}
{{- default (printf "%s-operator" (include "tidegate.fullname" .)) .Values.operator.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.operator.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "tidegate.controllerName" -}}
{{- default "tidegate" .Values.operator.controllerName -}}
{{- end }}

{{/* Address of the store; with a secret, the password is a file that is read at every connection. */}}
{{- define "tidegate.store" -}}
{{- if eq .Values.store.type "Memory" -}}
memory://
{{- else if .Values.store.url -}}
{{- .Values.store.url -}}
{{- if .Values.store.existingSecret -}}
{{- ternary "&" "?" (contains "?" .Values.store.url) -}}password_file=/etc/tidegate/store/password
{{- end -}}
{{- else -}}
{{- printf "redis://%s-redis.%s.svc:6379" (include "tidegate.fullname" .) (include "tidegate.namespace" .) -}}
{{- end -}}
{{- end }}

{{- define "tidegate.trialRedis" -}}
{{- if and (eq .Values.store.type "Redis") (not .Values.store.url) .Values.redis.enabled }}true{{ end -}}
{{- end }}

{{- define "tidegate.slots" -}}
{{- if .Values.service.slots -}}
{{- .Values.service.slots -}}
{{- else -}}
{{- $replicas := ternary .Values.service.autoscaling.maxReplicas .Values.service.replicas .Values.service.autoscaling.enabled -}}
{{- mul (max 1 (int $replicas)) (int .Values.service.workers) -}}
{{- end -}}
{{- end }}

{{- define "tidegate.xdsServerSecret" -}}
{{- if eq .Values.tls.xds.mode "ExistingSecret" }}{{ .Values.tls.xds.serverSecret }}{{ else }}{{ include "tidegate.fullname" . }}-xds-server{{ end -}}
{{- end }}

{{- define "tidegate.xdsClientSecret" -}}
{{- if eq .Values.tls.xds.mode "ExistingSecret" }}{{ .Values.tls.xds.clientSecret }}{{ else }}{{ include "tidegate.fullname" . }}-xds-client{{ end -}}
{{- end }}

{{- define "tidegate.grpcSecret" -}}
{{- if eq .Values.tls.grpc.mode "ExistingSecret" }}{{ .Values.tls.grpc.existingSecret }}{{ else }}{{ include "tidegate.fullname" . }}-grpc{{ end -}}
{{- end }}

{{/* Name that the service's xDS certificate carries and the operator asks for. */}}
{{- define "tidegate.xdsClientName" -}}
{{- printf "%s.%s.svc" (include "tidegate.fullname" .) (include "tidegate.namespace" .) -}}
{{- end }}

{{/* What a schema cannot say, each with the path to mend. */}}
{{- define "tidegate.validate" -}}
{{- $problems := list -}}
{{- if eq .Values.store.type "Memory" -}}
{{- if .Values.service.autoscaling.enabled -}}
{{- $problems = append $problems "service.autoscaling.enabled: counts in memory are one replica's; use store.type Redis" -}}
{{- else if gt (int .Values.service.replicas) 1 -}}
{{- $problems = append $problems "service.replicas: counts in memory are one replica's; set 1, or store.type Redis" -}}
{{- end -}}
{{- if .Values.store.url -}}
{{- $problems = append $problems "store.url: goes with store.type Redis" -}}
{{- end -}}
{{- else if and (not .Values.store.url) (not .Values.redis.enabled) -}}
{{- $problems = append $problems "store.url: name a Redis, or set redis.enabled for the trial one" -}}
{{- end -}}
{{- if and (eq .Values.tls.xds.mode "ExistingSecret") (or (not .Values.tls.xds.serverSecret) (not .Values.tls.xds.clientSecret)) -}}
{{- $problems = append $problems "tls.xds.serverSecret, tls.xds.clientSecret: both are needed with mode ExistingSecret" -}}
{{- end -}}
{{- if and (eq .Values.tls.grpc.mode "ExistingSecret") (not .Values.tls.grpc.existingSecret) -}}
{{- $problems = append $problems "tls.grpc.existingSecret: is needed with mode ExistingSecret" -}}
{{- end -}}
{{- if and (eq .Values.tls.grpc.mode "CertManager") (not .Values.tls.grpc.issuerRef.name) -}}
{{- $problems = append $problems "tls.grpc.issuerRef.name: is needed with mode CertManager" -}}
{{- end -}}
{{- if and (eq .Values.rbac.scope "namespaces") (not .Values.rbac.namespaces) -}}
{{- $problems = append $problems "rbac.namespaces: name at least one with scope namespaces" -}}
{{- end -}}
{{- if ge (int .Values.service.preStopSeconds) (int .Values.service.terminationGracePeriodSeconds) -}}
{{- $problems = append $problems "service.preStopSeconds: must be less than service.terminationGracePeriodSeconds" -}}
{{- end -}}
{{- if $problems -}}
{{- fail (printf "\n%s" (join "\n" $problems)) -}}
{{- end -}}
{{- end }}

{{/* Flags that the operator and its detach job share. */}}
{{- define "tidegate.operatorArgs" -}}
- --controller-name={{ include "tidegate.controllerName" . }}
- --release-namespace={{ include "tidegate.namespace" . }}
{{- if eq .Values.rbac.scope "namespaces" }}
{{- range .Values.rbac.namespaces }}
- --namespaces={{ . }}
{{- end }}
{{- end }}
{{- /* A Role of some namespaces can read no GatewayClass, and what cannot be read holds every push. */}}
- --gateway-api={{ and .Values.gatewayApi.enabled (eq .Values.rbac.scope "cluster") }}
- --log-format={{ .Values.operator.logFormat }}
- --log-level={{ .Values.operator.logLevel }}
{{- end }}

{{/* A definition with Helm's labels and annotation put in as text: read as YAML, its whole numbers would become floats. */}}
{{- define "tidegate.definition" -}}
{{- $labels := dict "app.kubernetes.io/name" (include "tidegate.name" .root) "app.kubernetes.io/managed-by" .root.Release.Service "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version) -}}
{{- $head := printf "\n  labels:\n%s\n" (toYaml (merge $labels .root.Values.commonLabels) | indent 4) -}}
{{- if .keep -}}
{{- $head = printf "\n  annotations:\n    helm.sh/resource-policy: keep%s" $head -}}
{{- end -}}
{{- .text | replace "\n  labels:\n" $head -}}
{{- end }}
