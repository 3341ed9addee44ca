{{/* What values.schema.json cannot say in words that help. */}}
{{- define "rlhf-operator.refuse" -}}
{{- $own := merge (include "rlhf-operator.selector" . | fromYaml) (include "rlhf-operator.version" . | fromYaml) -}}
{{- range $value := list "podLabels" "commonLabels" -}}
{{- range $label, $_ := index $.Values $value -}}
{{- if hasKey $own $label -}}
{{- fail (printf "%s: the label %s is the chart's own; take another" $value $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $set := list -}}
{{- range include "rlhf-operator.environment" . | fromYamlArray -}}
{{- $set = append $set .name -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if has .name $set -}}
{{- fail (printf "extraEnv: %s is written by the chart, from its other values" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
