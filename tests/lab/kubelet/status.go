package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// finished tells whether the API knows that the pod has ended for good.
func finished(pod *v1.Pod) bool {
	return pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed
}

// isGone tells whether a request failed because its pod is no more, or another
// one has its name.
func isGone(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsConflict(err)
}

// mainsEnded tells whether all main containers have ended and stay so.
func (w *worker) mainsEnded() bool {
	for _, c := range w.mains {
		if c.process != nil || c.state.Terminated == nil || w.restarts(c) {
			return false
		}
	}
	return true
}

// initFailed tells whether an init container has failed for good.
func (w *worker) initFailed() bool {
	for _, c := range w.inits {
		if ended := c.state.Terminated; ended != nil && ended.ExitCode != 0 && !w.restarts(c) {
			return true
		}
	}
	return false
}

// ended tells whether nothing of the pod runs, or will run again.
func (w *worker) ended() bool {
	for _, c := range w.inits {
		if c.process != nil {
			return false
		}
	}
	for _, c := range w.mains {
		if c.process != nil {
			return false
		}
	}
	return w.failed != "" || !w.stopAt.IsZero() || finished(w.pod) || w.mainsEnded() || w.initFailed()
}

// phase sums the containers up, as the documentation of the pod's life has it.
func (w *worker) phase() v1.PodPhase {
	switch {
	case finished(w.pod):
		return w.pod.Status.Phase
	case w.failed != "":
		return v1.PodFailed
	case w.initFailed():
		return v1.PodFailed
	case !w.initialized():
		return v1.PodPending
	}
	begun, failed := false, false
	for _, c := range w.mains {
		if c.runs > 0 {
			begun = true
		}
		if ended := c.state.Terminated; ended != nil && ended.ExitCode != 0 {
			failed = true
		}
	}
	deleted := w.pod.DeletionTimestamp != nil && w.ended() && begun
	switch {
	case !begun:
		return v1.PodPending
	case (w.mainsEnded() || deleted) && w.ended():
		if failed {
			return v1.PodFailed
		}
		return v1.PodSucceeded
	default:
		return v1.PodRunning
	}
}

func (w *worker) initialized() bool {
	for _, c := range w.inits {
		if c.sidecar && !c.started || !c.sidecar && !c.done() {
			return false
		}
	}
	return true
}

// status is what the API shall show of the pod.
func (w *worker) status() v1.PodStatus {
	status := v1.PodStatus{
		ObservedGeneration: w.pod.Generation,
		Phase:              w.phase(), HostIP: nodeAddress.String(), HostIPs: []v1.HostIP{{IP: nodeAddress.String()}},
		StartTime: w.pod.Status.StartTime, QOSClass: w.pod.Status.QOSClass,
		Reason: w.failed,
	}
	if status.StartTime == nil {
		now := metav1.Now().Rfc3339Copy()
		if w.sent != nil {
			now = *w.sent.StartTime
		}
		status.StartTime = &now
	}
	if w.podIP != "" {
		status.PodIP, status.PodIPs = w.podIP, []v1.PodIP{{IP: w.podIP}}
	}
	for _, c := range w.inits {
		status.InitContainerStatuses = append(status.InitContainerStatuses, w.containerStatus(c))
	}
	var unready []string
	for _, c := range w.mains {
		status.ContainerStatuses = append(status.ContainerStatuses, w.containerStatus(c))
		if !c.ready {
			unready = append(unready, c.spec.Name)
		}
	}
	over := status.Phase == v1.PodSucceeded || status.Phase == v1.PodFailed
	reason, message := "", ""
	switch {
	case status.Phase == v1.PodSucceeded:
		reason = "PodCompleted"
	case status.Phase == v1.PodFailed:
		reason = "PodFailed"
	case len(unready) > 0:
		reason, message = "ContainersNotReady", fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " "))
	}
	containersReady := len(unready) == 0 && !over
	gates := w.gatesOpen()
	w.condition(v1.PodReadyToStartContainers, w.address.IsValid(), "", "")
	initReason := ""
	if !w.initialized() {
		initReason = "ContainersNotInitialized"
	}
	w.condition(v1.PodInitialized, w.initialized(), initReason, "")
	w.condition(v1.ContainersReady, containersReady, reason, message)
	if containersReady && !gates {
		reason, message = "ReadinessGatesNotReady", "a readiness gate is not open"
	}
	w.condition(v1.PodReady, containersReady && gates, reason, message)
	w.condition(v1.PodScheduled, true, "", "")
	for _, kind := range []v1.PodConditionType{v1.PodReadyToStartContainers, v1.PodInitialized, v1.PodReady, v1.ContainersReady, v1.PodScheduled} {
		status.Conditions = append(status.Conditions, w.conditions[kind])
	}
	return status
}

func (w *worker) gatesOpen() bool {
	for _, gate := range w.pod.Spec.ReadinessGates {
		open := false
		for _, condition := range w.pod.Status.Conditions {
			open = open || condition.Type == gate.ConditionType && condition.Status == v1.ConditionTrue
		}
		if !open {
			return false
		}
	}
	return true
}

// condition sets one condition; its time moves only when its status does.
func (w *worker) condition(kind v1.PodConditionType, holds bool, reason, message string) {
	status := v1.ConditionFalse
	if holds {
		status = v1.ConditionTrue
	}
	known := w.conditions[kind]
	if known.Status != status {
		known.LastTransitionTime = metav1.Now().Rfc3339Copy()
	}
	known.Type, known.Status, known.Reason, known.Message = kind, status, reason, message
	known.ObservedGeneration = w.pod.Generation
	w.conditions[kind] = known
}

func (w *worker) containerStatus(c *container) v1.ContainerStatus {
	started := c.process != nil && c.started
	state := c.state
	if state.Waiting != nil && state.Waiting.Reason == "PodInitializing" && len(w.inits) == 0 {
		state = waiting("ContainerCreating", "")
	}
	ready := c.ready
	if c.init && !c.sidecar {
		ready = c.done()
	}
	return v1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.imageID, ContainerID: w.containerID(c),
		State: state, LastTerminationState: c.last, RestartCount: c.restarts, Ready: ready, Started: &started,
	}
}

// publish hands a changed status to the goroutine that sends it: the worker
// itself never waits for the API server.
func (w *worker) publish() {
	status := w.status()
	if w.sent != nil && equality.Semantic.DeepEqual(*w.sent, status) {
		return
	}
	w.sent = &status
	select {
	case <-w.outbox: // not sent yet, and out of date
	default:
	}
	w.outbox <- status
}

// sendStatuses sends the latest status until it is accepted.
func (w *worker) sendStatuses() {
	var status v1.PodStatus
	for {
		select {
		case <-w.over:
			return
		case status = <-w.outbox:
		}
		for {
			ctx, cancel := context.WithTimeout(w.ctx, requestLimit)
			err := w.patchStatus(ctx, status)
			cancel()
			if err == nil || isGone(err) {
				break
			}
			log.Printf("pod %s: status: %v", w.name(), err)
			select {
			case <-w.over:
				return
			case <-w.ctx.Done():
				return
			case status = <-w.outbox:
			case <-time.After(500 * time.Millisecond):
			}
		}
	}
}

// patchStatus replaces what the kubelet says in the pod's status; conditions of
// others stay.
func (w *worker) patchStatus(ctx context.Context, status v1.PodStatus) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": w.ref.UID}, "status": status,
	})
	if err != nil {
		return err
	}
	_, err = w.k.client.CoreV1().Pods(w.ref.Namespace).Patch(ctx, w.ref.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}
