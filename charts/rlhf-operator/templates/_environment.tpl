{{/* The operator's settings: rlhf_operator/kubernetes/settings.py. */}}
{{- define "rlhf-operator.environment" -}}
- {name: RLHF_OPERATOR_NAMESPACES, value: {{ join "," .Values.watch.namespaces | quote }}}
- {name: RLHF_OPERATOR_IMAGE, value: {{ .Values.runs.image | default (include "rlhf-operator.image" .) | quote }}}
{{- with .Values.runs.imagePullPolicy }}
- {name: RLHF_OPERATOR_IMAGE_PULL_POLICY, value: {{ . | quote }}}
{{- end }}
- {name: RLHF_OPERATOR_STAGE_USER, value: {{ kindIs "invalid" .Values.runs.runAsUser | ternary "image" (.Values.runs.runAsUser | int64 | toString) | quote }}}
- {name: RLHF_OPERATOR_SERVICE_ACCOUNTS, value: {{ join "," .Values.runs.allowedServiceAccounts | quote }}}
- {name: RLHF_OPERATOR_WORKERS, value: {{ .Values.operator.workers | quote }}}
- {name: RLHF_OPERATOR_RESYNC_SECONDS, value: {{ .Values.operator.resyncSeconds | quote }}}
- {name: RLHF_OPERATOR_LEASE_NAME, value: {{ include "rlhf-operator.fullname" . | quote }}}
- {name: RLHF_OPERATOR_HTTP_PORT, value: {{ .Values.operator.port | quote }}}
- {name: RLHF_OPERATOR_LOG_FORMAT, value: {{ .Values.operator.logFormat | quote }}}
- {name: RLHF_OPERATOR_LOG_LEVEL, value: {{ .Values.operator.logLevel | upper | quote }}}
- {name: RLHF_OPERATOR_LEASE_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
# The same for a container that starts again in its pod: it goes on without waiting for its own Lease to run out.
- {name: RLHF_OPERATOR_IDENTITY, value: $(POD_NAME)_$(POD_UID)}
{{- end -}}
