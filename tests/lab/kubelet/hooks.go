package kubelet

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// afterHook is what a container still gets for its own end where preStop used
// up the whole grace.
const afterHook = 2 * time.Second

// stopContainer has a container stopped within grace: preStop, SIGTERM, and
// SIGKILL when the grace is over. It returns at once; true means that the
// container still runs. A later call can only shorten the time.
func (w *worker) stopContainer(c *container, grace time.Duration, why string) bool {
	p := c.process
	if p == nil {
		return false
	}
	until := time.Now().Add(grace)
	if c.stopping == nil {
		w.k.events.Event(w.ref, v1.EventTypeNormal, "Killing", why)
		c.stopping, c.until = make(chan struct{}, 1), until
		go w.stopProcess(c.spec, p, until, c.stopping)
		return true
	}
	if until.Before(c.until.Add(-time.Second)) {
		c.until = until
		select {
		case c.stopping <- struct{}{}:
		default:
		}
	}
	return true
}

// stopProcess is stopContainer's long part. A message on hurry cuts the grace
// down to two seconds.
func (w *worker) stopProcess(c *v1.Container, p *process, until time.Time, hurry <-chan struct{}) {
	ctx, cancel := context.WithDeadline(w.ctx, until)
	defer cancel()
	if hooks := c.Lifecycle; hooks != nil && hooks.PreStop != nil && until.After(time.Now()) {
		done := make(chan error, 1)
		go func() { done <- w.runHook(ctx, c, p, hooks.PreStop) }()
		select {
		case err := <-done:
			if err != nil {
				log.Printf("pod %s: preStop of %s: %v", w.name(), c.Name, err)
				w.k.events.Event(w.ref, v1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
			}
		case <-ctx.Done():
		case <-p.exited:
			return
		case <-hurry:
			until = time.Now()
		}
	}
	if w.ctx.Err() != nil {
		return // the kubelet ends; its successor begins this again
	}
	if earliest := time.Now().Add(afterHook); until.Before(earliest) {
		until = earliest
	}
	p.signal(syscall.SIGTERM)
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		select {
		case <-p.exited:
			return
		case <-w.over:
			return
		case <-hurry:
			timer.Reset(afterHook)
		case <-timer.C:
			p.kill()
			timer.Reset(time.Second)
		}
	}
}

// afterStart runs postStart; a container whose hook fails is killed.
func (w *worker) afterStart(c *container, p *process, hook *v1.LifecycleHandler) {
	if err := w.runHook(w.ctx, c.spec, p, hook); err != nil {
		w.k.events.Event(w.ref, v1.EventTypeWarning, "FailedPostStartHook", err.Error())
		w.post(func() {
			if c.process == p {
				w.stopContainer(c, w.deletionGrace(), "FailedPostStartHook")
			}
		})
	}
}

// runHook does what a lifecycle handler says, until ctx ends.
func (w *worker) runHook(ctx context.Context, c *v1.Container, p *process, hook *v1.LifecycleHandler) error {
	switch {
	case hook.Sleep != nil:
		select {
		case <-time.After(time.Duration(hook.Sleep.Seconds) * time.Second):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	case hook.Exec != nil:
		status, output, err := p.execute(ctx, w.k.Runner, hook.Exec.Command)
		if err == nil && status != 0 {
			err = fmt.Errorf("exit status %d: %s", status, output)
		}
		return err
	case hook.HTTPGet != nil:
		get := hook.HTTPGet
		port, err := portOf(get.Port, c)
		if err != nil {
			return err
		}
		scheme, host := "http", get.Host
		if get.Scheme == v1.URISchemeHTTPS {
			scheme = "https"
		}
		if host == "" {
			host = w.address.String()
		}
		url := fmt.Sprintf("%s://%s%s", scheme, net.JoinHostPort(host, strconv.Itoa(port)), get.Path)
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		for _, header := range get.HTTPHeaders {
			request.Header.Add(header.Name, header.Value)
		}
		response, err := insecure.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 10<<10))
		return nil
	}
	return nil
}

// portOf is a port by number or by the name that the container gives it.
func portOf(port intstr.IntOrString, c *v1.Container) (int, error) {
	if port.Type == intstr.Int {
		return port.IntValue(), nil
	}
	for _, named := range c.Ports {
		if named.Name == port.StrVal {
			return int(named.ContainerPort), nil
		}
	}
	if number, err := strconv.Atoi(port.StrVal); err == nil {
		return number, nil
	}
	return 0, fmt.Errorf("no port named %q", port.StrVal)
}
