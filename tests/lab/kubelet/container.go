package kubelet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"backstay.dev/lab/spec"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// retry is how long a container waits after a mistake that is not its own: a
// missing object, an image that cannot be had at first.
const retry = time.Second

// container is what the kubelet knows of one container of a pod.
type container struct {
	spec    *v1.Container
	init    bool
	sidecar bool // an init container that goes on running

	runs     int // how many processes were started
	restarts int32
	state    v1.ContainerState
	last     v1.ContainerState
	started  bool
	ready    bool
	backOff  time.Duration // before the restart after the next
	pull     time.Duration // before the next try to have the image
	next     time.Time     // no start before this
	imageID  string

	process   *process      // nil unless it runs
	stopping  chan struct{} // closed to hurry a stop; nil: it was not told to stop
	until     time.Time     // when the stop becomes a kill
	endProbes func()
}

func newContainer(c *v1.Container) *container {
	return &container{spec: c, state: waiting("PodInitializing", ""), endProbes: func() {}}
}

func waiting(reason, message string) v1.ContainerState {
	return v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// done tells whether the container ended well.
func (c *container) done() bool {
	return c.process == nil && c.state.Terminated != nil && c.state.Terminated.ExitCode == 0
}

// ensure starts the container if it is due, and says when to look again.
func (w *worker) ensure(c *container, now time.Time) time.Duration {
	const later = time.Minute
	if c.process != nil {
		return later
	}
	if c.state.Terminated != nil && !w.restarts(c) {
		return later
	}
	if wait := c.next.Sub(now); wait > 0 {
		if ended := c.state.Terminated; ended != nil {
			message := fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)", wait.Round(time.Second), c.spec.Name, w.pod.Name, w.pod.Namespace, w.pod.UID)
			c.last, c.state = c.state, waiting("CrashLoopBackOff", message)
			w.k.events.Event(w.ref, v1.EventTypeWarning, "BackOff", "Back-off restarting failed container "+c.spec.Name)
		} else if c.state.Waiting != nil && c.state.Waiting.Reason == "ErrImagePull" {
			c.state = waiting("ImagePullBackOff", fmt.Sprintf("Back-off pulling image %q", c.spec.Image))
		}
		return wait
	}
	w.start(c, now)
	if c.process == nil {
		return max(time.Until(c.next), 100*time.Millisecond)
	}
	return later
}

// restarts tells whether a container that ended is started again.
func (w *worker) restarts(c *container) bool {
	if c.sidecar {
		return true
	}
	failed := c.state.Terminated.ExitCode != 0
	switch w.pod.Spec.RestartPolicy {
	case v1.RestartPolicyNever:
		return false
	case v1.RestartPolicyOnFailure:
		return failed
	default:
		return failed || !c.init
	}
}

// start tries to start the container; its state says why it could not.
func (w *worker) start(c *container, now time.Time) {
	from, err := w.k.findImage(c.spec.Image)
	if err != nil {
		w.k.events.Event(w.ref, v1.EventTypeWarning, "Failed", err.Error())
		c.pull = min(max(c.pull*2, w.k.BackOff), w.k.BackOffMax)
		w.postpone(c, now.Add(c.pull), "ErrImagePull", err)
		return
	}
	described, err := w.describe(c, from)
	if err != nil {
		w.k.events.Event(w.ref, v1.EventTypeWarning, "Failed", "Error: "+err.Error())
		w.postpone(c, now.Add(retry), "CreateContainerConfigError", err)
		return
	}
	path := filepath.Join(w.dir, "containers", fmt.Sprintf("%s-%d.json", c.spec.Name, c.runs))
	p, err := startProcess(w.k.Runner, path, *described)
	if err != nil {
		w.postpone(c, now.Add(retry), "CreateContainerError", err)
		return
	}
	if c.state.Terminated != nil {
		c.last = c.state
	}
	if c.runs > 0 {
		c.restarts++
	}
	c.runs++
	c.pull = 0
	c.imageID = imageID(c.spec.Image)
	c.state = v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: metav1.NewTime(now)}}
	c.started = c.spec.StartupProbe == nil
	c.ready = c.started && c.spec.ReadinessProbe == nil
	w.k.events.Event(w.ref, v1.EventTypeNormal, "Started", "Started container "+c.spec.Name)
	w.attend(c, p)
	if hooks := c.spec.Lifecycle; hooks != nil && hooks.PostStart != nil {
		go w.afterStart(c, p, hooks.PostStart)
	}
}

// postpone makes the container wait, with the reason that people will see.
func (w *worker) postpone(c *container, until time.Time, reason string, err error) {
	if c.state.Terminated != nil {
		c.last = c.state
	}
	c.state, c.next = waiting(reason, err.Error()), until
}

// attend follows a running process: its probes and its end.
func (w *worker) attend(c *container, p *process) {
	c.process, c.stopping = p, nil
	c.endProbes = w.startProbes(c, p)
	go func() {
		select {
		case <-p.exited:
			w.post(func() { w.exited(c, p) })
		case <-w.over:
		}
	}()
}

// exited takes note of the end of a process, and plans the restart: at once
// after the first failure, then after a back-off that doubles. A container that
// ran for twice the longest back-off begins anew.
func (w *worker) exited(c *container, p *process) {
	if c.process != p {
		return
	}
	c.endProbes()
	now := time.Now()
	started := metav1.NewTime(now)
	if c.state.Running != nil {
		started = c.state.Running.StartedAt
	}
	message := p.exit.Message
	if message == "" && p.exit.Code != 0 && c.spec.TerminationMessagePolicy == v1.TerminationMessageFallbackToLogsOnError {
		message = tail(p.Log, 2048)
	}
	c.state = v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
		ExitCode: int32(p.exit.Code), Reason: p.exit.Reason, Message: message,
		StartedAt: started, FinishedAt: metav1.NewTime(p.exit.Finished), ContainerID: w.containerID(c),
	}}
	c.process, c.stopping, c.started, c.ready = nil, nil, false, false
	if now.Sub(started.Time) > 2*w.k.BackOffMax {
		c.backOff = 0
	}
	c.next = now.Add(c.backOff)
	c.backOff = min(max(c.backOff*2, w.k.BackOff), w.k.BackOffMax)
	for _, file := range []string{p.path, p.Exit} {
		_ = os.Remove(file)
	}
}

// containerID names the latest run of a container.
func (w *worker) containerID(c *container) string {
	if c.runs == 0 {
		return ""
	}
	return fmt.Sprintf("lab://%s-%s-%d", w.pod.UID, c.spec.Name, c.runs-1)
}

// describe turns a container's spec into what the runner needs.
func (w *worker) describe(c *container, from image) (*spec.Container, error) {
	env, err := w.environment(c.spec, from)
	if err != nil {
		return nil, err
	}
	uid, gid, err := from.userOf()
	if err != nil {
		return nil, err
	}
	run := fmt.Sprintf("%s-%d", c.spec.Name, c.runs)
	described := &spec.Container{
		Hostname: w.hostname(), Root: from.Root, Hide: w.k.Dir,
		Work: filepath.Join(w.dir, "fs", run),
		Args: command(c.spec, from, env), Env: list(env), Dir: c.spec.WorkingDir, UID: uid, GID: gid,
		Log:         w.logFile(c.spec.Name),
		Exit:        filepath.Join(w.dir, "containers", run+".exit"),
		Pid:         filepath.Join(w.pidDir(), c.spec.Name),
		Termination: filepath.Join(w.dir, "termination", c.spec.Name),
		MessagePath: c.spec.TerminationMessagePath,
	}
	if !w.pod.Spec.HostNetwork {
		described.NetNS = w.k.network.path(string(w.pod.UID))
		for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
			described.Mounts = append(described.Mounts, spec.Mount{Source: filepath.Join(w.dir, "etc", name), Target: "/etc/" + name})
		}
	}
	if described.Dir == "" {
		described.Dir = from.WorkingDir
	}
	if described.Dir == "" {
		described.Dir = "/"
	}
	if described.MessagePath == "" {
		described.MessagePath = v1.TerminationMessagePathDefault
	}
	mounts, err := w.mounts(c.spec, env)
	if err != nil {
		return nil, err
	}
	described.Mounts = append(described.Mounts, mounts...)
	return described, w.secure(c.spec, described)
}

// secure applies the security contexts of the pod and, over it, the container.
func (w *worker) secure(c *v1.Container, described *spec.Container) error {
	nonRoot := false
	if pod := w.pod.Spec.SecurityContext; pod != nil {
		apply(&described.UID, pod.RunAsUser)
		apply(&described.GID, pod.RunAsGroup)
		nonRoot = isTrue(pod.RunAsNonRoot)
		for _, group := range pod.SupplementalGroups {
			described.Groups = append(described.Groups, int(group))
		}
		if pod.FSGroup != nil {
			described.Groups = append(described.Groups, int(*pod.FSGroup))
		}
	}
	if own := c.SecurityContext; own != nil {
		apply(&described.UID, own.RunAsUser)
		apply(&described.GID, own.RunAsGroup)
		if own.RunAsNonRoot != nil {
			nonRoot = *own.RunAsNonRoot
		}
		described.ReadOnlyRoot = isTrue(own.ReadOnlyRootFilesystem)
		described.NoNewPrivs = own.AllowPrivilegeEscalation != nil && !*own.AllowPrivilegeEscalation
		described.DropAll = own.Capabilities != nil && slices.Contains(own.Capabilities.Drop, "ALL")
	}
	if nonRoot && described.UID == 0 {
		return errors.New("container has runAsNonRoot and image will run as root")
	}
	return nil
}

func apply(to *int, value *int64) {
	if value != nil {
		*to = int(*value)
	}
}

func (w *worker) logFile(container string) string {
	return filepath.Join(w.k.Dir, "logs", w.pod.Namespace, w.pod.Name, container+".log")
}

// tail is the end of a file, limit bytes at most.
func tail(path string, limit int64) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > limit {
		_, _ = file.Seek(-limit, 2)
	}
	data := make([]byte, limit)
	n, _ := file.Read(data)
	return string(data[:n])
}
