package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// failures tests that what is wrong with a pod shows as it does in a real cluster.
func (s *smoke) failures() {
	s.check("a crashing container is in CrashLoopBackOff", func(ctx context.Context) error {
		if err := s.create(ctx, "crash", func(_ *v1.Pod, c *v1.Container) {
			c.Command = []string{"sh", "-c", "echo gone > /dev/termination-log; exit 3"}
		}); err != nil {
			return err
		}
		pod, err := s.awaitPod(ctx, "crash", func(pod *v1.Pod) bool {
			return waitsWith("CrashLoopBackOff")(pod) && pod.Status.ContainerStatuses[0].RestartCount > 1
		})
		if err != nil {
			return err
		}
		last := pod.Status.ContainerStatuses[0].LastTerminationState.Terminated
		if last == nil || last.ExitCode != 3 || last.Reason != "Error" || last.Message != "gone\n" {
			return fmt.Errorf("the last state is %v", last)
		}
		return nil
	})
	s.check("a missing Secret gives CreateContainerConfigError, until it is there", func(ctx context.Context) error {
		if err := s.create(ctx, "secretive", func(_ *v1.Pod, c *v1.Container) {
			c.Env = []v1.EnvVar{{Name: "KEY", ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{
				LocalObjectReference: v1.LocalObjectReference{Name: "late"}, Key: "key",
			}}}}
		}); err != nil {
			return err
		}
		if _, err := s.awaitPod(ctx, "secretive", waitsWith("CreateContainerConfigError")); err != nil {
			return err
		}
		secret := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "late"}, StringData: map[string]string{"key": "k"}}
		if _, err := s.client.CoreV1().Secrets(s.namespace).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
			return err
		}
		_, err := s.awaitPod(ctx, "secretive", isReady)
		return err
	})
	s.check("an absent registry gives ErrImagePull and ImagePullBackOff", func(ctx context.Context) error {
		if err := s.create(ctx, "unpulled", func(_ *v1.Pod, c *v1.Container) { c.Image = absentImage }); err != nil {
			return err
		}
		_, err := s.awaitPod(ctx, "unpulled", waitsWith("ImagePullBackOff"))
		return err
	})
	s.check("a failing readiness probe keeps a pod out", func(ctx context.Context) error {
		if err := s.create(ctx, "unready", func(_ *v1.Pod, c *v1.Container) {
			c.Command = append(c.Command, "--unhealthy")
			c.ReadinessProbe = &v1.Probe{PeriodSeconds: 1, ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)}}}
		}); err != nil {
			return err
		}
		pod, err := s.awaitPod(ctx, "unready", func(pod *v1.Pod) bool { return pod.Status.Phase == v1.PodRunning })
		if err != nil {
			return err
		}
		time.Sleep(1500 * time.Millisecond)
		if pod, err = s.pod(ctx, "unready"); err != nil || isReady(pod) {
			return fmt.Errorf("ready: %t, %v", isReady(pod), err)
		}
		if _, err := get(ctx, pod.Status.PodIP+":8080", "/heal"); err != nil {
			return err
		}
		_, err = s.awaitPod(ctx, "unready", isReady)
		return err
	})
	s.check("a failing liveness probe restarts a container", func(ctx context.Context) error {
		if err := s.create(ctx, "sick", func(_ *v1.Pod, c *v1.Container) {
			c.LivenessProbe = &v1.Probe{PeriodSeconds: 1, FailureThreshold: 1, ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)}}}
		}); err != nil {
			return err
		}
		pod, err := s.awaitPod(ctx, "sick", isReady)
		if err != nil {
			return err
		}
		if err := await(ctx, "echo", func() error { _, err := get(ctx, pod.Status.PodIP+":8080", "/fail"); return err }); err != nil {
			return err
		}
		_, err = s.awaitPod(ctx, "sick", func(pod *v1.Pod) bool {
			return isReady(pod) && pod.Status.ContainerStatuses[0].RestartCount == 1
		})
		return err
	})
}

// absentImage is in the registry that never answers.
const absentImage = "registry.invalid/none:1"

// lifecycle tests the order of things in a pod's life.
func (s *smoke) lifecycle() {
	s.check("init containers run one after another, before the others", func(ctx context.Context) error {
		if err := s.create(ctx, "ordered", func(pod *v1.Pod, c *v1.Container) {
			scratch := []v1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}
			pod.Spec.Volumes = []v1.Volume{{Name: "scratch", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}}}
			c.VolumeMounts = scratch
			for _, name := range []string{"one", "two"} {
				pod.Spec.InitContainers = append(pod.Spec.InitContainers, v1.Container{
					Name: name, Image: "busybox", Command: []string{"sh", "-c", "sleep 0.2; echo " + name + " >> /scratch/order"}, VolumeMounts: scratch,
				})
			}
		}); err != nil {
			return err
		}
		pod, err := s.awaitPod(ctx, "ordered", isReady)
		if err != nil {
			return err
		}
		return await(ctx, "echo", func() error { return expect(ctx, pod, query("/file", "path", "/scratch/order"), "one\ntwo") })
	})
	s.check("SIGKILL ends what does not heed SIGTERM, after the grace", func(ctx context.Context) error {
		if err := s.create(ctx, "deaf", func(pod *v1.Pod, c *v1.Container) {
			grace := int64(2)
			pod.Spec.TerminationGracePeriodSeconds = &grace
			c.Command = []string{"sh", "-c", "trap 'echo heard' TERM; while true; do sleep 0.1; done"}
		}); err != nil {
			return err
		}
		if _, err := s.awaitPod(ctx, "deaf", isReady); err != nil {
			return err
		}
		begun := time.Now()
		if err := s.client.CoreV1().Pods(s.namespace).Delete(ctx, "deaf", metav1.DeleteOptions{}); err != nil {
			return err
		}
		if err := s.awaitGone(ctx, "deaf"); err != nil {
			return err
		}
		if took := time.Since(begun); took < 1900*time.Millisecond || took > 15*time.Second || !strings.Contains(s.log("deaf"), "heard") {
			return fmt.Errorf("it took %s, and its log is %q", took, s.log("deaf"))
		}
		return nil
	})
	s.check("exec probes and hooks run inside the container", func(ctx context.Context) error {
		if err := s.create(ctx, "inside", func(_ *v1.Pod, c *v1.Container) {
			c.Lifecycle = &v1.Lifecycle{
				PostStart: &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"touch", "/tmp/begun"}}},
				PreStop:   &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"sh", "-c", "echo hook > /proc/1/fd/1"}}},
			}
			c.ReadinessProbe = &v1.Probe{PeriodSeconds: 1, ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"test", "-e", "/tmp/begun"}}}}
		}); err != nil {
			return err
		}
		if _, err := s.awaitPod(ctx, "inside", isReady); err != nil {
			return err
		}
		if err := s.client.CoreV1().Pods(s.namespace).Delete(ctx, "inside", metav1.DeleteOptions{}); err != nil {
			return err
		}
		if err := s.awaitGone(ctx, "inside"); err != nil {
			return err
		}
		if said := s.log("inside"); strings.Index(said, "hook") < 0 || strings.Index(said, "signal") < strings.Index(said, "hook") {
			return fmt.Errorf("its log is %q", said)
		}
		return nil
	})
	s.check("a projected token reaches the API server, with the pod's rights", func(ctx context.Context) error {
		if err := s.create(ctx, "client", func(pod *v1.Pod, c *v1.Container) {
			pod.Spec.RestartPolicy = v1.RestartPolicyNever
			c.Command = []string{"sh", "-c", `cd /var/run/secrets/kubernetes.io/serviceaccount
				curl -sS --max-time 5 --cacert ca.crt -H "Authorization: Bearer $(cat token)" "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/namespaces/$(cat namespace)/pods" > /dev/termination-log`}
		}); err != nil {
			return err
		}
		pod, err := s.awaitPod(ctx, "client", func(pod *v1.Pod) bool { return pod.Status.Phase == v1.PodSucceeded })
		if err != nil {
			return err
		}
		said := pod.Status.ContainerStatuses[0].State.Terminated.Message
		if !strings.Contains(said, `User \"system:serviceaccount:`+s.namespace+`:default\" cannot list`) {
			return errors.New(said)
		}
		return nil
	})
}

func (s *smoke) awaitGone(ctx context.Context, name string) error {
	return await(ctx, "end of "+name, func() error {
		_, err := s.pod(ctx, name)
		if err == nil {
			return errors.New("still there")
		}
		return nil
	})
}

// access tests who may do what, and that logs can be read.
func (s *smoke) access() {
	s.check("the API gives the log of a container", func(ctx context.Context) error {
		lines := int64(1)
		data, err := s.client.CoreV1().Pods(s.namespace).GetLogs("ordered", &v1.PodLogOptions{Container: "main", TailLines: &lines}).DoRaw(ctx)
		if err == nil && !strings.Contains(string(data), "listening") {
			err = fmt.Errorf("it is %q", data)
		}
		return err
	})
	s.check("alice is in lab:people and may do nothing yet", func(ctx context.Context) error {
		client, err := s.as("alice")
		if err != nil {
			return err
		}
		if _, err := client.CoreV1().Pods(s.namespace).List(ctx, metav1.ListOptions{}); err == nil || !strings.Contains(err.Error(), `"alice" cannot list`) {
			return fmt.Errorf("listing pods gives %v", err)
		}
		return nil
	})
}

// faults tests that parts can die and come back.
func (s *smoke) faults() {
	part := func(words ...string) error {
		output, err := exec.Command(s.lab(), append([]string{"part"}, words...)...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, output)
		}
		return err
	}
	s.check("pods survive the kubelet, and the next one finds them", func(ctx context.Context) error {
		before, err := s.pod(ctx, "ordered")
		if err != nil {
			return err
		}
		if err := errors.Join(part("kill", "kubelet"), expect(ctx, before, "/", "ordered"), part("start", "kubelet")); err != nil {
			return err
		}
		time.Sleep(time.Second)
		after, err := s.pod(ctx, "ordered")
		if err != nil {
			return err
		}
		if after.Status.ContainerStatuses[0].RestartCount != 0 || !isReady(after) || after.Status.PodIP != before.Status.PodIP {
			return fmt.Errorf("its status is %s", after.Status.String())
		}
		_, _ = get(ctx, after.Status.PodIP+":8080", "/exit?code=4")
		_, err = s.awaitPod(ctx, "ordered", func(pod *v1.Pod) bool {
			last := pod.Status.ContainerStatuses[0].LastTerminationState.Terminated
			return isReady(pod) && last != nil && last.ExitCode == 4
		})
		return err
	})
	s.check("a killed API server comes back with what it had", func(ctx context.Context) error {
		if err := errors.Join(part("kill", "apiserver"), part("start", "apiserver")); err != nil {
			return err
		}
		_, err := s.pod(ctx, "ordered")
		return err
	})
}
