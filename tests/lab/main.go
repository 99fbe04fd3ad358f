// Command lab is a small but real Kubernetes cluster for tests, in one
// program: etcd, the API server, the controllers, the scheduler, and a kubelet
// that runs each container as a process in namespaces of its own.
//
// It is started by the script `with` beside this file; README.md tells how.
package main

import (
	"fmt"
	"maps"
	"os"
	"slices"

	"backstay.dev/lab/echo"
)

// commands maps each sub-command to what runs it. A command gets the arguments
// after its name and returns the exit status of the program.
var commands = map[string]struct {
	run   func(args []string) int
	about string
}{
	"etcd":                    {runEtcd, "the store of the API server"},
	"kube-apiserver":          {runAPIServer, "the API server, as released"},
	"kube-controller-manager": {runControllerManager, "the controllers, as released"},
	"kube-scheduler":          {runScheduler, "the scheduler, as released"},
	"kubelet":                 {runKubelet, "the node: runs pods as processes"},
	"up":                      {runUp, "start all of them, and run a command; called by `with`"},
	"part":                    {runPart, "stop, cont, kill, start NAME, or list: the parts of the running lab"},
	"git-http":                {runGitHTTP, "a smart HTTP server for Git repositories"},
	"smoke":                   {runSmoke, "the test of the lab itself"},
	"echo-server":             {echo.Run, "the little server that tests run in pods"},
}

func main() {
	if len(os.Args) > 1 {
		if command, ok := commands[os.Args[1]]; ok {
			os.Exit(command.run(os.Args[2:]))
		}
	}
	fmt.Fprintln(os.Stderr, "usage: lab COMMAND …")
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		fmt.Fprintf(os.Stderr, "  %-24s %s\n", name, commands[name].about)
	}
	os.Exit(2)
}
