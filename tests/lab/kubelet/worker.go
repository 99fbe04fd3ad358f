package kubelet

import (
	"context"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"backstay.dev/lab/spec"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// worker runs one pod. All that it knows is changed by its own goroutine alone:
// whoever else has news (the watch, a probe, the end of a process) posts it.
type worker struct {
	k     *Kubelet
	ctx   context.Context
	inbox chan func()
	over  chan struct{} // closed when the worker has ended

	ref     *v1.Pod           // as first seen: who the pod is, for any goroutine
	pod     *v1.Pod           // as last seen
	dir     string            // folder of the pod below State
	address netip.Addr        // invalid: not in the network (any more)
	podIP   string            // the address, kept when the pod has left the network
	folders map[string]string // volumes that are folders of the machine
	tokens  map[string]token

	inits      []*container
	mains      []*container
	conditions map[v1.PodConditionType]v1.PodCondition
	saved      string // state file as last written
	outbox     chan v1.PodStatus
	sent       *v1.PodStatus

	volumesReady bool
	refreshAt    time.Time
	stopAt       time.Time // when the pod was told to stop; zero: it was not
	grace        time.Duration
	failed       string // reason to end the pod for good, DeadlineExceeded
	removed      bool   // the API has no such pod any more
}

func newWorker(ctx context.Context, k *Kubelet, pod *v1.Pod) *worker {
	w := &worker{
		k: k, ctx: ctx, ref: pod, pod: pod, inbox: make(chan func(), 16), over: make(chan struct{}),
		dir:     filepath.Join(k.State, "pods", string(pod.UID)),
		folders: map[string]string{}, tokens: map[string]token{},
		conditions: map[v1.PodConditionType]v1.PodCondition{}, outbox: make(chan v1.PodStatus, 1),
	}
	for _, condition := range pod.Status.Conditions {
		w.conditions[condition.Type] = condition
	}
	for n := range pod.Spec.InitContainers {
		c := newContainer(&pod.Spec.InitContainers[n])
		c.init = true
		c.sidecar = c.spec.RestartPolicy != nil && *c.spec.RestartPolicy == v1.ContainerRestartPolicyAlways
		w.inits = append(w.inits, c)
	}
	for n := range pod.Spec.Containers {
		w.mains = append(w.mains, newContainer(&pod.Spec.Containers[n]))
	}
	return w
}

// post hands the worker something to do; it is dropped once the worker is over.
func (w *worker) post(news func()) {
	select {
	case w.inbox <- news:
	case <-w.over:
	}
}

func (w *worker) name() string { return w.ref.Namespace + "/" + w.ref.Name }

func (w *worker) hostname() string {
	name := w.pod.Spec.Hostname
	if name == "" {
		name = w.pod.Name
	}
	if len(name) > 63 {
		name = name[:63]
	}
	return name
}

// run is the worker's life: news, then a look at everything, again and again.
func (w *worker) run() {
	defer close(w.over)
	w.restore()
	go w.sendStatuses()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case news := <-w.inbox:
			news()
		case <-timer.C:
		}
		for more := true; more; {
			select {
			case news := <-w.inbox:
				news()
			default:
				more = false
			}
		}
		next, finished := w.sync(time.Now())
		if finished {
			w.k.forget(w.pod.UID)
			return
		}
		timer.Reset(max(next, time.Millisecond))
	}
}

// sync does what is due now and says when to look again at the latest. finished
// means that nothing is left of the pod, here and in the API.
func (w *worker) sync(now time.Time) (next time.Duration, ended bool) {
	switch {
	case w.removed:
		if w.stop(now, 0) {
			w.cleanUp()
			return 0, true
		}
	case w.pod.DeletionTimestamp != nil:
		if w.stop(now, w.deletionGrace()) {
			if w.deleteFromAPI() {
				w.cleanUp()
				return 0, true
			}
			return 500 * time.Millisecond, false
		}
	case w.failed != "":
		w.stop(now, w.deletionGrace())
	case finished(w.pod):
	case w.pastDeadline(now):
		w.failed = "DeadlineExceeded"
		return 0, false
	default:
		next = w.advance(now)
	}
	w.publish()
	w.save()
	if w.ended() && w.address.IsValid() {
		w.leaveNetwork()
	}
	if next == 0 {
		next = time.Second
	}
	return next, false
}

// advance brings the pod nearer to what its spec asks for.
func (w *worker) advance(now time.Time) time.Duration {
	if w.ended() {
		return time.Minute
	}
	if w.mainsEnded() {
		for n := len(w.inits) - 1; n >= 0 && !w.stopContainer(w.inits[n], w.deletionGrace(), "Stopping sidecar "+w.inits[n].spec.Name); n-- {
		}
		return time.Second
	}
	if !w.address.IsValid() {
		if err := w.joinNetwork(); err != nil {
			log.Printf("pod %s: %v", w.name(), err)
			w.k.events.Eventf(w.ref, v1.EventTypeWarning, "FailedCreatePodSandBox", "%v", err)
			return time.Second
		}
	}
	if !w.volumesReady || now.After(w.refreshAt) {
		if err := w.prepareVolumes(); err != nil {
			if !w.volumesReady {
				w.k.events.Eventf(w.ref, v1.EventTypeWarning, "FailedMount", "%v", err)
				return time.Second
			}
			log.Printf("pod %s: %v", w.name(), err)
		}
		w.volumesReady, w.refreshAt = true, now.Add(w.k.Refresh)
	}
	next := time.Until(w.refreshAt)
	for _, c := range w.inits {
		if c.done() && !c.sidecar {
			continue
		}
		next = min(next, w.ensure(c, now))
		if !c.sidecar || !c.started {
			return next
		}
	}
	for _, c := range w.mains {
		next = min(next, w.ensure(c, now))
	}
	return next
}

// joinNetwork gives the pod an address and a network namespace.
func (w *worker) joinNetwork() error {
	if w.pod.Spec.HostNetwork {
		w.address, w.podIP = nodeAddress, nodeAddress.String()
		return nil
	}
	address, err := w.k.network.allocate()
	if err != nil {
		return err
	}
	if err := w.k.network.create(string(w.pod.UID), address); err != nil {
		w.k.network.remove(string(w.pod.UID))
		w.k.network.release(address)
		return err
	}
	w.address, w.podIP = address, address.String()
	return w.writeNames()
}

func (w *worker) leaveNetwork() {
	if !w.pod.Spec.HostNetwork {
		w.k.network.remove(string(w.pod.UID))
		w.k.network.release(w.address)
	}
	w.address = netip.Addr{}
	w.save()
}

// writeNames makes the pod's /etc/hosts, /etc/hostname and /etc/resolv.conf. No
// name server answers at the address in it, so every look-up fails at once.
func (w *worker) writeNames() error {
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" + w.address.String() + "\t" + w.hostname() + "\n"
	for _, alias := range w.pod.Spec.HostAliases {
		hosts += alias.IP
		for _, name := range alias.Hostnames {
			hosts += "\t" + name
		}
		hosts += "\n"
	}
	for name, content := range map[string]string{
		"hosts": hosts, "hostname": w.hostname() + "\n",
		"resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
	} {
		if err := spec.WriteFile(filepath.Join(w.dir, "etc", name), []byte(content)); err != nil {
			return err
		}
	}
	return nil
}

// pastDeadline tells whether activeDeadlineSeconds of the pod are over.
func (w *worker) pastDeadline(now time.Time) bool {
	limit, start := w.pod.Spec.ActiveDeadlineSeconds, w.pod.Status.StartTime
	return limit != nil && start != nil && now.After(start.Add(time.Duration(*limit)*time.Second))
}

func (w *worker) deletionGrace() time.Duration {
	seconds := int64(30)
	if own := w.pod.Spec.TerminationGracePeriodSeconds; own != nil {
		seconds = *own
	}
	if asked := w.pod.DeletionGracePeriodSeconds; asked != nil {
		seconds = *asked
	}
	return time.Duration(seconds) * time.Second
}

// stop ends all containers: the main ones together, then the sidecars in
// reverse order. It is called again until it returns true: nothing runs.
func (w *worker) stop(now time.Time, grace time.Duration) bool {
	if w.stopAt.IsZero() {
		w.stopAt = now
	}
	w.grace = grace
	left := max(grace-now.Sub(w.stopAt), 0)
	busy := false
	for _, c := range w.mains {
		busy = w.stopContainer(c, left, "Stopping container "+c.spec.Name) || busy
	}
	for n := len(w.inits) - 1; n >= 0 && !busy; n-- {
		busy = w.stopContainer(w.inits[n], left, "Stopping container "+w.inits[n].spec.Name)
	}
	return !busy
}

// deleteFromAPI tells the API server that the pod's processes have ended. True
// means that the object is gone.
func (w *worker) deleteFromAPI() bool {
	ctx, cancel := context.WithTimeout(w.ctx, requestLimit)
	defer cancel()
	if err := w.patchStatus(ctx, w.status()); err != nil && !isGone(err) {
		log.Printf("pod %s: last status: %v", w.name(), err)
		return false
	}
	none := int64(0)
	err := w.k.client.CoreV1().Pods(w.pod.Namespace).Delete(ctx, w.pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &none, Preconditions: &metav1.Preconditions{UID: &w.pod.UID},
	})
	if err != nil && !isGone(err) {
		log.Printf("pod %s: delete: %v", w.name(), err)
		return false
	}
	return true
}

// cleanUp takes away all that is left of the pod on the node.
func (w *worker) cleanUp() {
	if w.address.IsValid() {
		w.leaveNetwork()
	}
	if err := os.RemoveAll(w.dir); err != nil {
		log.Printf("pod %s: %v", w.name(), err)
	}
	_ = os.RemoveAll(w.pidDir())
}

func (w *worker) pidDir() string {
	return filepath.Join(w.k.Dir, "pids", "pods", w.pod.Namespace, w.pod.Name)
}
