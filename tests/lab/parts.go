package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"backstay.dev/lab/spec"
)

// part is one program of the lab: it can be stopped, continued, killed and
// started again, always with the same arguments.
type part struct {
	name  string
	args  []string
	ready func() error // nil: ready as soon as it runs
	// patient parts give up where the API server does not serve them yet, and
	// are started again, as a real cluster would do. What a signal ended is not.
	patient bool
	again   int

	process *os.Process   // nil before the first start
	over    chan struct{} // closed when the process has ended
	told    bool          // its end was asked for
}

// parts holds all of a lab, in the order of their start.
type parts struct {
	dir string

	mu      sync.Mutex
	all     []*part
	closing bool
}

func (ps *parts) find(name string) *part {
	for _, p := range ps.all {
		if p.name == name {
			return p
		}
	}
	return nil
}

// add starts a new part. It is not waited for: see await.
func (ps *parts) add(name string, ready func() error, args ...string) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := &part{name: name, args: args, ready: ready, patient: ready == nil || name == "contour"}
	ps.all = append(ps.all, p)
	return ps.start(p)
}

// start runs the part's program, in a session of its own, with its output in a
// log file, and its pid in a file for tests.
func (ps *parts) start(p *part) error {
	path := ps.logFile(p.name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	command := exec.Command(p.args[0], p.args[1:]...)
	command.Stdout, command.Stderr = log, log
	command.Dir = ps.dir
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + ps.dir}
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	p.process, p.over, p.told = command.Process, make(chan struct{}), false
	if err := spec.WriteFile(filepath.Join(ps.dir, "pids", p.name), []byte(strconv.Itoa(p.process.Pid))); err != nil {
		return err
	}
	go func(over chan struct{}) {
		err := command.Wait()
		defer close(over)
		ps.mu.Lock()
		defer ps.mu.Unlock()
		if p.told || ps.closing {
			return
		}
		var ended *exec.ExitError
		if p.patient && p.again < 20 && errors.As(err, &ended) && ended.Exited() {
			p.again++
			fmt.Fprintf(os.Stderr, "lab: %s ended by itself (%v) and is started again\n", p.name, err)
			go ps.revive(p)
			return
		}
		ps.mourn(p, err)
	}(p.over)
	return nil
}

// revive starts a part again that gave up, unless somebody else did by then.
func (ps *parts) revive(p *part) {
	time.Sleep(time.Second)
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if !p.alive() && !ps.closing {
		if err := ps.start(p); err != nil {
			fmt.Fprintln(os.Stderr, "lab:", err)
		}
	}
}

// mourn tells that a part ended though nobody asked it to.
func (ps *parts) mourn(p *part, err error) {
	if err == nil {
		err = errors.New("exit status 0")
	}
	fmt.Fprintf(os.Stderr, "lab: %s ended by itself (%v); the end of its log, %s:\n", p.name, err, ps.logFile(p.name))
	data, _ := os.ReadFile(ps.logFile(p.name))
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	for _, line := range lines[max(0, len(lines)-20):] {
		fmt.Fprintf(os.Stderr, "lab: | %.200s\n", line)
	}
}

func (ps *parts) logFile(name string) string {
	return filepath.Join(ps.dir, "logs", "parts", name+".log")
}

// await waits for the part to be ready, limit at most, or to have ended.
func (ps *parts) await(name string, limit time.Duration) error {
	p := ps.find(name)
	if p.ready == nil {
		return nil
	}
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		if err = p.ready(); err == nil {
			return nil
		}
		select {
		case <-p.over:
			return fmt.Errorf("%s ended before it was ready", name)
		case <-time.After(25 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s is not ready after %s: %w", name, limit, err)
}

// act does to a part what `lab part` asks for, and returns once it is done.
func (ps *parts) act(action, name string) (string, error) {
	ps.mu.Lock()
	if action == "list" {
		defer ps.mu.Unlock()
		return ps.list(), nil
	}
	p := ps.find(name)
	if p == nil {
		ps.mu.Unlock()
		return "", fmt.Errorf("no part %q in this lab", name)
	}
	alive := p.alive()
	if alive == (action == "start") {
		ps.mu.Unlock()
		return "", fmt.Errorf("%s: %s is running: %t", action, name, alive)
	}
	var err error
	switch action {
	case "stop":
		err = p.process.Signal(syscall.SIGSTOP)
	case "cont":
		err = p.process.Signal(syscall.SIGCONT)
	case "kill":
		p.told = true
		err = p.process.Signal(syscall.SIGKILL)
	case "start":
		err = ps.start(p)
	default:
		err = fmt.Errorf("no action %q: stop, cont, kill, start or list", action)
	}
	over := p.over
	ps.mu.Unlock()
	switch {
	case err != nil:
		return "", err
	case action == "kill":
		<-over
	case action == "start":
		return "", ps.await(name, startLimit)
	}
	return "", nil
}

func (p *part) alive() bool {
	select {
	case <-p.over:
		return false
	default:
		return true
	}
}

func (ps *parts) list() string {
	var text bytes.Buffer
	for _, p := range ps.all {
		state := "ended"
		if p.alive() {
			state = "running"
			if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.process.Pid)); err == nil && bytes.Contains(stat, []byte(") T ")) {
				state = "stopped"
			}
		}
		fmt.Fprintf(&text, "%s %d %s\n", p.name, p.process.Pid, state)
	}
	return text.String()
}

// close lets all parts die without a word: the lab ends.
func (ps *parts) close() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.closing = true
}
