package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"backstay.dev/lab/kubelet"
)

// runKubelet runs the kubelet of the lab's only node, until a signal.
func runKubelet(args []string) int {
	var options kubelet.Options
	flags := flag.NewFlagSet("kubelet", flag.ExitOnError)
	flags.StringVar(&options.Dir, "dir", os.Getenv("LAB_DIR"), "the lab's folder")
	flags.StringVar(&options.Runner, "runner", "", "the program lab-run")
	flags.StringVar(&options.Node, "node", nodeName, "name of the node")
	flags.DurationVar(&options.BackOff, "back-off", time.Second, "first back-off of a crashing container")
	flags.DurationVar(&options.BackOffMax, "back-off-max", 30*time.Second, "its upper bound")
	flags.DurationVar(&options.Refresh, "refresh", 5*time.Second, "how often volumes follow their objects")
	_ = flags.Parse(args)
	options.Kubeconfig = filepath.Join(options.Dir, "parts", "kubelet.kubeconfig")
	options.State = filepath.Join(options.Dir, "run", "kubelet")
	options.Certs = filepath.Join(options.Dir, "certs")
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)

	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	if err := kubelet.Run(ctx, options); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "kubelet:", err)
		return 1
	}
	return 0
}
