package kubelet

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"backstay.dev/lab/spec"
)

// process is one run of a container: a shim, and below it the container's own
// process. The shim writes how it ended; nobody else needs to wait for it.
type process struct {
	spec.Container
	path   string        // of the spec file
	shim   int           // its pid
	exited chan struct{} // closed once exit is known
	exit   spec.Exit
}

// startProcess writes the spec to path and starts a shim for it.
func startProcess(runner, path string, container spec.Container) (*process, error) {
	for _, file := range []string{container.Log, container.Pid, container.Termination} {
		if file == "" {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return nil, err
		}
	}
	if container.Termination != "" {
		if err := os.WriteFile(container.Termination, nil, 0o666); err != nil {
			return nil, err
		}
		_ = os.Chmod(container.Termination, 0o666)
	}
	if err := spec.Write(path, container); err != nil {
		return nil, err
	}
	command := exec.Command(runner, "shim", path)
	command.Stderr = os.Stderr
	command.Env = []string{}
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return nil, err
	}
	p := &process{Container: container, path: path, shim: command.Process.Pid, exited: make(chan struct{})}
	go func() {
		_ = command.Wait()
		p.ended()
	}()
	return p, nil
}

// adoptProcess finds the process of an earlier kubelet's spec file.
func adoptProcess(path string, shim int) (*process, error) {
	p := &process{path: path, shim: shim, exited: make(chan struct{})}
	if err := spec.Read(path, &p.Container); err != nil {
		return nil, err
	}
	go func() {
		for p.shimRuns() {
			time.Sleep(50 * time.Millisecond)
		}
		p.ended()
	}()
	return p, nil
}

// processesIn lists the processes that were started from spec files below the
// folder of a pod.
func processesIn(dir string) []*process {
	var found []*process
	paths, _ := filepath.Glob(filepath.Join(dir, "containers", "*.json"))
	for _, path := range paths {
		p := &process{path: path}
		if spec.Read(path, &p.Container) == nil {
			found = append(found, p)
		}
	}
	return found
}

// ended reads how the process ended; a shim that was killed left no word.
func (p *process) ended() {
	if err := spec.Read(p.Exit, &p.exit); err != nil {
		p.exit = spec.Exit{Code: 137, Signal: 9, Reason: "ContainerStatusUnknown", Message: "the container could not be located when the pod was terminated", Finished: time.Now()}
		_ = os.Remove(p.Pid)
	}
	close(p.exited)
}

func (p *process) shimRuns() bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.shim))
	return err == nil && strings.Contains(string(line), p.path)
}

// awaitPid is pid for a process that may have been started just now: it is not
// the container's until its file system stands.
func (p *process) awaitPid() int {
	for range 200 {
		if pid := p.pid(); pid > 0 || !p.running() {
			return pid
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0
}

// pid is the container's process, or 0 when there is none (any more, or yet).
func (p *process) pid() int {
	data, err := os.ReadFile(p.Pid)
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(string(data))
	return pid
}

func (p *process) signal(s syscall.Signal) {
	if pid := p.awaitPid(); pid > 0 {
		_ = syscall.Kill(pid, s)
	}
}

// kill ends the container with all its processes: the first of a process
// namespace takes the others with it.
func (p *process) kill() {
	if pid := p.pid(); pid > 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	} else if p.shim > 0 && p.shimRuns() {
		_ = syscall.Kill(p.shim, syscall.SIGKILL)
	}
}

// running tells whether the process has not ended yet.
func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// execute runs a command inside the container until ctx ends, and returns its
// exit status and the first 10 KiB of what it wrote.
func (p *process) execute(ctx context.Context, runner string, args []string) (status int, output string, err error) {
	inside := p.Container
	inside.Args = args
	path := fmt.Sprintf("%s.exec-%d", strings.TrimSuffix(p.path, ".json"), time.Now().UnixNano())
	if err := spec.Write(path, inside); err != nil {
		return 0, "", err
	}
	defer os.Remove(path)
	pid := p.awaitPid()
	if pid == 0 {
		return 0, "", fmt.Errorf("the container does not run")
	}
	var written bytes.Buffer
	command := exec.CommandContext(ctx, runner, "exec", strconv.Itoa(pid), path)
	command.Stdout, command.Stderr = &written, &written
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = 100 * time.Millisecond
	err = command.Run()
	output = written.String()
	if len(output) > 10<<10 {
		output = output[:10<<10]
	}
	switch {
	case ctx.Err() != nil:
		return 0, output, ctx.Err()
	case command.ProcessState != nil && command.ProcessState.Exited():
		return command.ProcessState.ExitCode(), output, nil
	default:
		return 0, output, err
	}
}
