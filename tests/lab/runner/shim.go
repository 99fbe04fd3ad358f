package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"backstay.dev/lab/spec"
	"golang.org/x/sys/unix"
)

// shim starts the container that the file at path describes, waits for its
// end, and writes how it ended. It outlives the kubelet, as the shim of a real
// runtime does: a kubelet that comes back finds the process and its fate.
//
// If the shim itself is killed, the container is killed with it.
func shim(path string) int {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	var container spec.Container
	if err := spec.Read(path, &container); err != nil {
		return failed("shim", err)
	}
	exit := run(path, &container)
	exit.Finished = now()
	_ = os.Remove(container.Pid)
	_ = os.RemoveAll(container.Work)
	if err := spec.Write(container.Exit, exit); err != nil {
		return failed("shim", err)
	}
	return 0
}

func run(path string, container *spec.Container) spec.Exit {
	failure := func(err error) spec.Exit {
		return spec.Exit{Code: 128, Reason: "StartError", Message: err.Error()}
	}
	log, err := os.OpenFile(container.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return failure(err)
	}
	if container.NetNS != "" {
		if err := join(container.NetNS, unix.CLONE_NEWNET); err != nil {
			return failure(err)
		}
	}
	// enter says on this pipe why it could not become the container's process;
	// the pipe closes without a word once it did.
	heard, said, err := os.Pipe()
	if err != nil {
		return failure(err)
	}
	command := exec.Command("/proc/self/exe", "enter", path)
	command.Stdout, command.Stderr, command.ExtraFiles = log, log, []*os.File{said}
	command.Env = []string{}
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Setsid:     true,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := command.Start(); err != nil {
		return failure(err)
	}
	said.Close()
	complaint, _ := io.ReadAll(heard)
	if len(complaint) == 0 {
		_ = spec.WriteFile(container.Pid, []byte(strconv.Itoa(command.Process.Pid)))
	}
	ended := command.Wait()
	if len(complaint) > 0 {
		return failure(errors.New(string(complaint)))
	}
	exit := spec.Exit{Reason: "Completed", Message: terminationMessage(container.Termination)}
	if code := status(ended); code != 0 {
		exit.Code, exit.Reason = code, "Error"
	}
	if wait, ok := command.ProcessState.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
		exit.Signal = int(wait.Signal())
	}
	return exit
}

// terminationMessage is what the container left for its status: 4 KiB at most.
func terminationMessage(path string) string {
	if path == "" {
		return ""
	}
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	data, _ := io.ReadAll(io.LimitReader(file, 4096))
	return string(bytes.ToValidUTF8(data, nil))
}

// execIn runs the command of the spec file at path inside the running container
// whose process is pid, and exits with its status: for probes and hooks.
func execIn(pid, path string) int {
	var container spec.Container
	if err := spec.Read(path, &container); err != nil {
		return failed("exec", err)
	}
	for _, namespace := range []struct {
		name string
		kind int
	}{{"net", unix.CLONE_NEWNET}, {"uts", unix.CLONE_NEWUTS}, {"ipc", unix.CLONE_NEWIPC}, {"pid", unix.CLONE_NEWPID}} {
		if err := join("/proc/"+pid+"/ns/"+namespace.name, namespace.kind); err != nil {
			return failed("exec", err)
		}
	}
	// A thread that shares its root folder with others may not change its mounts.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return failed("exec", err)
	}
	if err := join("/proc/"+pid+"/ns/mnt", unix.CLONE_NEWNS); err != nil {
		return failed("exec", err)
	}
	if err := os.Chdir(container.Dir); err != nil {
		return failed("exec", err)
	}
	program, err := lookPath(&container)
	if err != nil {
		return failed("exec", err)
	}
	command := &exec.Cmd{Path: program, Args: container.Args, Env: container.Env}
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	// No death signal here: Go would take the parent, which another process
	// namespace hides, for dead. The kubelet kills the whole group instead.
	command.SysProcAttr = &syscall.SysProcAttr{}
	if container.UID != 0 || container.GID != 0 || len(container.Groups) > 0 {
		credential := &syscall.Credential{Uid: uint32(container.UID), Gid: uint32(container.GID)}
		for _, group := range container.Groups {
			credential.Groups = append(credential.Groups, uint32(group))
		}
		command.SysProcAttr.Credential = credential
	}
	return status(command.Run())
}

// join moves this thread into the namespace behind a file.
func join(path string, kind int) error {
	file, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("namespace %s: %w", path, err)
	}
	defer unix.Close(file)
	if err := unix.Setns(file, kind); err != nil {
		return fmt.Errorf("namespace %s: %w", path, err)
	}
	return nil
}
