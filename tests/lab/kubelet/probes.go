package kubelet

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/probe"
	grpcprobe "k8s.io/kubernetes/pkg/probe/grpc"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
	tcpprobe "k8s.io/kubernetes/pkg/probe/tcp"
)

// The probers of Kubernetes itself: they judge answers as the real kubelet does.
var (
	httpProber = httpprobe.New(false)
	tcpProber  = tcpprobe.New()
	grpcProber = grpcprobe.New()
)

// insecure asks pods over HTTPS without checking who they are, for hooks.
var insecure = &http.Client{Transport: &http.Transport{
	TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
}}

// startProbes begins all probes of a running container. The function that it
// returns ends them.
func (w *worker) startProbes(c *container, p *process) (end func()) {
	ctx, cancel := context.WithCancel(w.ctx)
	// Readiness and liveness wait for the startup probe.
	up := &atomic.Bool{}
	up.Store(c.started)
	begun := time.Now()
	if c.state.Running != nil {
		begun = c.state.Running.StartedAt.Time
	}
	one := prober{w: w, c: c, spec: c.spec, process: p, address: w.address.String(), up: up, begun: begun}
	if own := c.spec.StartupProbe; own != nil && !c.started {
		go one.of("Startup", own).run(ctx)
	}
	if own := c.spec.ReadinessProbe; own != nil {
		ready := one.of("Readiness", own)
		ready.good = c.ready
		go ready.run(ctx)
	}
	if own := c.spec.LivenessProbe; own != nil {
		live := one.of("Liveness", own)
		live.good = true
		go live.run(ctx)
	}
	return cancel
}

// prober asks one probe again and again.
type prober struct {
	w       *worker
	c       *container // only touched in what is posted to the worker
	spec    *v1.Container
	process *process
	address string
	up      *atomic.Bool
	begun   time.Time

	kind  string
	probe *v1.Probe
	good  bool // the last verdict
	count int  // answers in a row that contradict it
}

func (p prober) of(kind string, asked *v1.Probe) *prober {
	p.kind, p.probe = kind, asked
	return &p
}

func (p *prober) run(ctx context.Context) {
	period := seconds(p.probe.PeriodSeconds, 10)
	// The real kubelet asks first within a period, whenever its clock ticks. Here
	// it is soon, so that tests are quick, but after a period where a failure
	// would end the container.
	first := min(period, 100*time.Millisecond)
	if p.kind == "Liveness" {
		first = period
	}
	delay := time.Until(p.begun.Add(max(seconds(p.probe.InitialDelaySeconds, 0), first)))
	timer := time.NewTimer(max(delay, 0))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if p.kind != "Startup" && !p.up.Load() {
			timer.Reset(min(period, 100*time.Millisecond))
			continue
		}
		asked := time.Now()
		good, said := p.ask(ctx)
		if ctx.Err() != nil || p.judge(good, said) {
			return
		}
		timer.Reset(max(period-time.Since(asked), 0))
	}
}

// judge counts an answer, and acts once there are enough of a kind in a row.
// True means that this probe is over.
func (p *prober) judge(good bool, said string) bool {
	if !good {
		p.w.k.events.Eventf(p.w.ref, v1.EventTypeWarning, "Unhealthy", "%s probe failed: %s", p.kind, said)
	}
	// A startup probe has no good state to lose: its failures always count.
	if good == p.good && (p.kind != "Startup" || good) {
		p.count = 0
		return false
	}
	p.count++
	threshold := p.probe.SuccessThreshold
	if !good {
		threshold = p.probe.FailureThreshold
	}
	if p.count < int(threshold) {
		return false
	}
	p.good, p.count = good, 0
	switch {
	case p.kind == "Readiness":
		p.tell(func() { p.c.ready = good })
	case p.kind == "Startup" && good:
		p.up.Store(true)
		p.tell(func() {
			p.c.started = true
			p.c.ready = p.c.ready || p.spec.ReadinessProbe == nil
		})
		return true
	case !good:
		p.kill()
		return true
	}
	return false
}

// tell changes the container, if it still runs the process that was asked.
func (p *prober) tell(change func()) {
	p.w.post(func() {
		if p.c.process == p.process {
			change()
		}
	})
}

// kill stops the container for its restart, within the probe's own grace.
func (p *prober) kill() {
	p.tell(func() {
		grace := p.w.grace
		if own := p.w.pod.Spec.TerminationGracePeriodSeconds; own != nil {
			grace = time.Duration(*own) * time.Second
		}
		if own := p.probe.TerminationGracePeriodSeconds; own != nil {
			grace = time.Duration(*own) * time.Second
		}
		p.w.stopContainer(p.c, grace, fmt.Sprintf("Container %s failed %s probe, will be restarted", p.spec.Name, p.kind))
	})
}

// ask does one probe and returns its verdict and what was said.
func (p *prober) ask(ctx context.Context) (bool, string) {
	limit := seconds(p.probe.TimeoutSeconds, 1)
	var result probe.Result
	var said string
	var err error
	switch {
	case p.probe.HTTPGet != nil:
		var request *http.Request
		if request, err = httpprobe.NewRequestForHTTPGetAction(p.probe.HTTPGet, p.spec, p.address, "probe"); err == nil {
			result, said, err = httpProber.Probe(request, limit)
		}
	case p.probe.TCPSocket != nil:
		host := p.probe.TCPSocket.Host
		if host == "" {
			host = p.address
		}
		var port int
		if port, err = portOf(p.probe.TCPSocket.Port, p.spec); err == nil {
			result, said, err = tcpProber.Probe(host, port, limit)
		}
	case p.probe.GRPC != nil:
		service := ""
		if p.probe.GRPC.Service != nil {
			service = *p.probe.GRPC.Service
		}
		result, said, err = grpcProber.Probe(p.address, service, int(p.probe.GRPC.Port), limit)
	case p.probe.Exec != nil:
		limited, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		var status int
		status, said, err = p.process.execute(limited, p.w.k.Runner, p.probe.Exec.Command)
		if limited.Err() != nil {
			return false, fmt.Sprintf("command timed out after %s", limit)
		}
		result = probe.Failure
		if err == nil && status == 0 {
			result = probe.Success
		}
	}
	if err != nil {
		return false, err.Error()
	}
	return result == probe.Success || result == probe.Warning, said
}

// seconds is a duration of the API, whose zero stands for a default.
func seconds(value int32, unset int32) time.Duration {
	if value == 0 {
		value = unset
	}
	return time.Duration(value) * time.Second
}
