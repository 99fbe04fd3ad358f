package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// launch runs a command as `lab-run init` in network, mount and process
// namespaces of its own, and exits with its status. Whoever is not root gets a
// user namespace too, in which there is only one user.
//
// When launch dies, by whatever signal, the kernel kills init, and with it all
// processes of its process namespace; the mounts and the network end with them.
func launch(args []string) int {
	self, err := os.Executable()
	if err != nil {
		return failed("launch", err)
	}
	command := exec.Command(self, append([]string{"init"}, args...)...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Getuid() != 0 {
		command.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if err := command.Start(); err != nil {
		return failed("launch: new namespaces", err)
	}
	go func() {
		for s := range signals {
			_ = command.Process.Signal(s)
		}
	}()
	return status(command.Wait())
}

// initialize is process 1 of the lab: it mounts a /proc of this process
// namespace, runs a command, passes signals on to it, and reaps whatever is
// orphaned. It ends with the command, and everything else ends with it.
func initialize(args []string) int {
	if os.Getpid() != 1 {
		return failed("init", errors.New("only as process 1, see `lab-run launch`"))
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return failed("init: private mounts", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return failed("init: /proc", err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	path, err := exec.LookPath(args[0])
	if err != nil {
		return failed("init", err)
	}
	main, err := os.StartProcess(path, args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return failed("init", err)
	}
	go func() {
		for s := range signals {
			_ = unix.Kill(main.Pid, s.(syscall.Signal))
		}
	}()
	for {
		var ended unix.WaitStatus
		pid, err := unix.Wait4(-1, &ended, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return failed("init: wait", err)
		case pid == main.Pid && ended.Signaled():
			return 128 + int(ended.Signal())
		case pid == main.Pid:
			return ended.ExitStatus()
		}
	}
}

// status is the exit status of a command that ended with err, as a shell tells it.
func status(err error) int {
	var ended *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ended):
		if wait, ok := ended.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
			return 128 + int(wait.Signal())
		}
		return ended.ExitCode()
	default:
		return failed("wait", err)
	}
}

func failed(what string, err error) int {
	fmt.Fprintf(os.Stderr, "lab-run: %s: %v\n", what, err)
	return 125
}

// now is the time of an exit, in the resolution of the Kubernetes API.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }
