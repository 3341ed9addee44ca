{{/*
What the operator may do where it works on runs: nothing on Secrets, no pods to make, nothing by wildcard.
- Services, ConfigMaps, NetworkPolicies and Events are applied: `patch`, and `create` for the first time.
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
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [list, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [list, create, patch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create, patch]
{{- end -}}
