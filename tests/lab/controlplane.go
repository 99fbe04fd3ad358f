package main

import (
	"os"
	_ "time/tzdata" // CronJobs name time zones

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	_ "sigs.k8s.io/gateway-api/apis/v1" // keeps the module, whose CRD files `with` takes
)

// runReleased runs a command of Kubernetes as its own main function would:
// the flags are those of the release, and os.Args is what the command reads.
func runReleased(command *cobra.Command, args []string) int {
	os.Args = append([]string{command.Name()}, args...)
	return cli.Run(command)
}

func runAPIServer(args []string) int { return runReleased(apiserver.NewAPIServerCommand(), args) }

func runControllerManager(args []string) int {
	return runReleased(controllers.NewControllerManagerCommand(), args)
}

func runScheduler(args []string) int { return runReleased(scheduler.NewSchedulerCommand(), args) }
