// The controller manager of Kubernetes, as its own main package starts it, but for one constant: a failed pod of a Job is replaced
// after RLHF_TEST_POD_BACKOFF where that is set, not after 10 s, 20 s, 40 s. No flag says so, and tests of retries would take minutes.
package main

import (
	"fmt"
	"os"
	"time"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	"k8s.io/kubernetes/pkg/controller/job"
)

func main() {
	if text, set := os.LookupEnv("RLHF_TEST_POD_BACKOFF"); set {
		backoff, err := time.ParseDuration(text)
		if err != nil {
			fmt.Fprintln(os.Stderr, "RLHF_TEST_POD_BACKOFF:", err)
			os.Exit(2)
		}
		job.DefaultJobPodFailureBackOff = backoff
	}
	os.Exit(cli.Run(app.NewControllerManagerCommand()))
}
