{{/*
What the operator may do where it works on runs: the table in rlhf_operator/kubernetes/app.py, which a test compares with this.
Nothing on Secrets, no pods to make, nothing by wildcard.
- Services, ConfigMaps and NetworkPolicies are applied: `patch`, and `create` for the first time.
- `delete` of pods: of those whose stage has ended and in which a sidecar goes on (ADR 0017).
- `update` of rlhfruns/finalizers: OpenShift's API server asks for it where a child blocks the deletion of its owner.
*/}}
{{- define "rlhf-operator.runPermissions" -}}
- apiGroups: [rlhf.dev]
  resources: [rlhfruns]
  verbs: [get, list, watch]
- apiGroups: [rlhf.dev]
  resources: [rlhfruns/status]
  verbs: [patch]
- apiGroups: [rlhf.dev]
  resources: [rlhfruns/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
{{- end -}}
