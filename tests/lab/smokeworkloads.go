package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// workloads tests what a healthy application needs: a Deployment with all kinds
// of configuration, its Service, its scaling, a Job.
func (s *smoke) workloads() {
	core := s.client.CoreV1()
	var pods []v1.Pod
	s.check("a Deployment of 2 becomes available", func(ctx context.Context) error {
		configMap := &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Data: map[string]string{"prompt.md": "be brief\n", "level": "debug"}}
		if _, err := core.ConfigMaps(s.namespace).Create(ctx, configMap, metav1.CreateOptions{}); err != nil {
			return err
		}
		secret := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "web"}, StringData: map[string]string{"key": "s3cret"}}
		if _, err := core.Secrets(s.namespace).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
			return err
		}
		if _, err := core.Services(s.namespace).Create(ctx, &v1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "web"},
			Spec: v1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []v1.ServicePort{
				{Port: 80, TargetPort: intstr.FromString("http")},
			}},
		}, metav1.CreateOptions{}); err != nil {
			return err
		}
		if _, err := s.client.AppsV1().Deployments(s.namespace).Create(ctx, s.deployment(), metav1.CreateOptions{}); err != nil {
			return err
		}
		if err := await(ctx, "deployment", func() error {
			got, err := s.client.AppsV1().Deployments(s.namespace).Get(ctx, "web", metav1.GetOptions{})
			if err == nil && got.Status.AvailableReplicas != 2 {
				err = fmt.Errorf("%d available", got.Status.AvailableReplicas)
			}
			return err
		}); err != nil {
			return err
		}
		list, err := core.Pods(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
		if err == nil {
			pods = list.Items
		}
		return err
	})
	if len(pods) != 2 {
		return
	}
	s.check("each pod answers on its own address", func(ctx context.Context) error {
		return errors.Join(expect(ctx, &pods[0], "/", pods[0].Name), expect(ctx, &pods[1], "/", pods[1].Name))
	})
	s.check("variables come from all their sources", func(ctx context.Context) error {
		var all error
		for name, want := range map[string]string{
			"LEVEL": "debug", "KEY": "s3cret", "NAME": pods[0].Name, "ADDRESS": pods[0].Status.PodIP, "BOTH": pods[0].Name + "-debug",
			"ALL_level": "debug", "APP": "web", "LAB_DIR": "", "KUBECONFIG": "", "HOSTNAME": pods[0].Name,
		} {
			all = errors.Join(all, expect(ctx, &pods[0], query("/env", "name", name), want))
		}
		return all
	})
	s.check("a ConfigMap's file is right and read-only", func(ctx context.Context) error {
		if err := expect(ctx, &pods[0], query("/file", "path", "/etc/web/prompts/brief.md"), "be brief"); err != nil {
			return err
		}
		if _, err := get(ctx, pods[0].Status.PodIP+":8080", query("/write", "path", "/etc/web/prompts/brief.md")); err == nil || !strings.Contains(err.Error(), "read-only") {
			return fmt.Errorf("writing gives %v", err)
		}
		if _, err := get(ctx, pods[0].Status.PodIP+":8080", query("/file", "path", "/etc/web/prompts/level")); err == nil {
			return errors.New("a key that is not among the items is there")
		}
		return nil
	})
	s.check("an emptyDir can be written by the pod's group, its root cannot", func(ctx context.Context) error {
		address := pods[0].Status.PodIP + ":8080"
		if _, err := get(ctx, address, query("/write", "path", "/scratch/x")); err != nil {
			return err
		}
		if _, err := get(ctx, address, query("/write", "path", "/x")); err == nil {
			return errors.New("the root folder can be written")
		}
		return expect(ctx, &pods[0], "/id", "4321 4321 [2000]")
	})
	s.check("EndpointSlices hold the ready pods", func(ctx context.Context) error {
		return await(ctx, "slices", func() error {
			slices, err := s.client.DiscoveryV1().EndpointSlices(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=web"})
			if err != nil {
				return err
			}
			ready := map[string]bool{}
			for _, slice := range slices.Items {
				for _, endpoint := range slice.Endpoints {
					ready[endpoint.Addresses[0]] = *endpoint.Conditions.Ready && *slice.Ports[0].Port == 8080
				}
			}
			if len(ready) != 2 || !ready[pods[0].Status.PodIP] || !ready[pods[1].Status.PodIP] {
				return fmt.Errorf("endpoints are %v", ready)
			}
			return nil
		})
	})
	s.check("the Service's address leads to a pod", func(ctx context.Context) error {
		service, err := core.Services(s.namespace).Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return await(ctx, "service", func() error {
			got, err := get(ctx, service.Spec.ClusterIP+":80", "/")
			if err == nil && got != pods[0].Name && got != pods[1].Name {
				err = fmt.Errorf("it answers %q", got)
			}
			return err
		})
	})
	s.check("scaling down runs preStop, then SIGTERM", func(ctx context.Context) error {
		patch := []byte(`{"spec":{"replicas":0}}`)
		if _, err := s.client.AppsV1().Deployments(s.namespace).Patch(ctx, "web", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return err
		}
		if err := await(ctx, "pods", func() error {
			list, err := core.Pods(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
			if err == nil && len(list.Items) > 0 {
				err = fmt.Errorf("%d left", len(list.Items))
			}
			return err
		}); err != nil {
			return err
		}
		said := s.log(pods[0].Name)
		hook, signal := strings.Index(said, "asked for /fail"), strings.Index(said, "signal terminated")
		if hook < 0 || signal < hook || !strings.Contains(said, "ended") {
			return fmt.Errorf("its log is %q", said)
		}
		return nil
	})
	s.check("a Job completes", func(ctx context.Context) error {
		job := &batch.Job{ObjectMeta: metav1.ObjectMeta{Name: "once"}, Spec: batch.JobSpec{Template: v1.PodTemplateSpec{Spec: v1.PodSpec{
			RestartPolicy: v1.RestartPolicyNever,
			Containers:    []v1.Container{{Name: "main", Image: "busybox", Command: []string{"sh", "-c", "echo done $0 > /dev/termination-log"}}},
		}}}}
		if _, err := s.client.BatchV1().Jobs(s.namespace).Create(ctx, job, metav1.CreateOptions{}); err != nil {
			return err
		}
		return await(ctx, "job", func() error {
			got, err := s.client.BatchV1().Jobs(s.namespace).Get(ctx, "once", metav1.GetOptions{})
			if err == nil && got.Status.CompletionTime == nil {
				err = errors.New("not complete")
			}
			return err
		})
	})
	s.check("a HorizontalPodAutoscaler is accepted", func(ctx context.Context) error {
		_, err := s.client.AutoscalingV2().HorizontalPodAutoscalers(s.namespace).Create(ctx, &autoscaling.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Name: "web"},
			Spec: autoscaling.HorizontalPodAutoscalerSpec{
				ScaleTargetRef: autoscaling.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"}, MaxReplicas: 3,
			},
		}, metav1.CreateOptions{})
		return err
	})
}

// deployment is the healthy application: all kinds of variables and volumes, all
// three probes, a preStop hook, and a user who may do little.
func (s *smoke) deployment() *apps.Deployment {
	two, user, group, grace, yes, no := int32(2), int64(4321), int64(2000), int64(10), true, false
	field := func(path string) *v1.EnvVarSource {
		return &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: path}}
	}
	web := v1.LocalObjectReference{Name: "web"}
	healthy := v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http")}}
	container := v1.Container{
		Name: "main", Image: "echo:1", Command: []string{s.self}, Args: []string{"echo-server", "--listen", "0.0.0.0:$(PORT)"},
		Ports: []v1.ContainerPort{{Name: "http", ContainerPort: 8080}},
		Env: []v1.EnvVar{
			{Name: "PORT", Value: "8080"},
			{Name: "LEVEL", ValueFrom: &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: web, Key: "level"}}},
			{Name: "KEY", ValueFrom: &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: web, Key: "key"}}},
			{Name: "NAME", ValueFrom: field("metadata.name")}, {Name: "ADDRESS", ValueFrom: field("status.podIP")},
			{Name: "APP", ValueFrom: field("metadata.labels['app']")}, {Name: "BOTH", Value: "$(NAME)-$(LEVEL)"},
		},
		EnvFrom: []v1.EnvFromSource{{Prefix: "ALL_", ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: web}}},
		VolumeMounts: []v1.VolumeMount{
			{Name: "prompts", MountPath: "/etc/web/prompts"}, {Name: "scratch", MountPath: "/scratch"},
		},
		StartupProbe:   &v1.Probe{ProbeHandler: healthy, PeriodSeconds: 1, FailureThreshold: 30},
		ReadinessProbe: &v1.Probe{ProbeHandler: healthy, PeriodSeconds: 1},
		LivenessProbe:  &v1.Probe{ProbeHandler: v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt32(8080)}}, PeriodSeconds: 1},
		Lifecycle:      &v1.Lifecycle{PreStop: &v1.LifecycleHandler{HTTPGet: &v1.HTTPGetAction{Path: "/fail", Port: intstr.FromString("http")}}},
		SecurityContext: &v1.SecurityContext{
			ReadOnlyRootFilesystem: &yes, AllowPrivilegeEscalation: &no, Capabilities: &v1.Capabilities{Drop: []v1.Capability{"ALL"}},
		},
	}
	labels := map[string]string{"app": "web"}
	return &apps.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: apps.DeploymentSpec{
		Replicas: &two, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{
			TerminationGracePeriodSeconds: &grace, Containers: []v1.Container{container},
			SecurityContext: &v1.PodSecurityContext{RunAsUser: &user, RunAsGroup: &user, FSGroup: &group, RunAsNonRoot: &yes},
			Volumes: []v1.Volume{
				{Name: "scratch", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
				{Name: "prompts", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{
					LocalObjectReference: web, Items: []v1.KeyToPath{{Key: "prompt.md", Path: "brief.md"}},
				}}},
			},
		}},
	}}
}
