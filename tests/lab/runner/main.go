// Command lab-run starts processes in namespaces: the lab itself (launch,
// init), and in it every container of a pod (shim, enter, exec).
//
// It is apart from the lab's big program because one of it runs beside each
// container, and because its start is part of a container's start.
package main

import (
	"fmt"
	"os"
	"runtime"

	"backstay.dev/lab/echo"
)

func main() {
	// Namespaces and death signals belong to threads: all that matters runs on
	// the first one, which lives as long as the process.
	runtime.LockOSThread()
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: lab-run launch|init|shim|enter|exec|echo-server …")
		os.Exit(2)
	}
	args := os.Args[2:]
	switch os.Args[1] {
	case "launch":
		os.Exit(launch(args))
	case "init":
		os.Exit(initialize(args))
	case "shim":
		os.Exit(shim(args[0]))
	case "enter":
		os.Exit(enter(args[0]))
	case "exec":
		os.Exit(execIn(args[0], args[1]))
	case "echo-server":
		os.Exit(echo.Run(args))
	default:
		fmt.Fprintf(os.Stderr, "lab-run: no command %q\n", os.Args[1])
		os.Exit(2)
	}
}
