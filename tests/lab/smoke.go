package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// smoke is one run of the lab's own test, in a namespace of its own.
type smoke struct {
	client    kubernetes.Interface
	namespace string
	dir       string // LAB_DIR
	self      string // the program to run in pods
	passed    int
	failed    int
}

// check runs one test. What it needs may take 30 seconds.
func (s *smoke) check(what string, test func(ctx context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	begun := time.Now()
	if err := test(ctx); err != nil {
		s.failed++
		fmt.Printf("FAILED %s: %v\n", what, err)
		return
	}
	s.passed++
	fmt.Printf("ok     %s (%.1f s)\n", what, time.Since(begun).Seconds())
}

// runSmoke tests the running lab through its API, as a client would.
func runSmoke(args []string) int {
	flags := flag.NewFlagSet("smoke", flag.ExitOnError)
	parts := flags.Bool("parts", true, "also kill the kubelet and the API server, and start them again")
	_ = flags.Parse(args)
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return complain("smoke", err)
	}
	config.QPS, config.Burst = 500, 1000
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return complain("smoke", err)
	}
	self, err := os.Executable()
	if err != nil {
		return complain("smoke", err)
	}
	s := &smoke{client: client, dir: os.Getenv("LAB_DIR"), self: filepath.Join(filepath.Dir(self), "lab-run")}
	space := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "smoke-"}}
	s.check("a namespace with an account", func(ctx context.Context) error {
		made, err := client.CoreV1().Namespaces().Create(ctx, space, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		s.namespace = made.Name
		return await(ctx, "account", func() error {
			_, err := client.CoreV1().ServiceAccounts(s.namespace).Get(ctx, "default", metav1.GetOptions{})
			return err
		})
	})
	s.workloads()
	s.failures()
	s.lifecycle()
	s.access()
	if *parts {
		s.faults()
	}
	if os.Getenv("LAB_GATEWAY") != "" {
		s.gateway(config)
	}
	_ = client.CoreV1().Namespaces().Delete(context.Background(), s.namespace, metav1.DeleteOptions{})
	fmt.Printf("%d passed, %d failed\n", s.passed, s.failed)
	if s.failed > 0 {
		return 1
	}
	return 0
}

// get asks a pod something, from the lab's network.
func get(ctx context.Context, address, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, body)
	}
	return strings.TrimSpace(string(body)), err
}

// expect asks a pod, and wants exactly this answer.
func expect(ctx context.Context, pod *v1.Pod, path, want string) error {
	got, err := get(ctx, pod.Status.PodIP+":8080", path)
	if err == nil && got != want {
		err = fmt.Errorf("%s answers %q instead of %q", path, got, want)
	}
	return err
}

func query(path, name, value string) string {
	return path + "?" + url.Values{name: {value}}.Encode()
}

// create makes a pod of one container, which runs the echo server unless it has
// a command.
func (s *smoke) create(ctx context.Context, name string, change func(*v1.Pod, *v1.Container)) error {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}}, Spec: v1.PodSpec{
		Containers: []v1.Container{{Name: "main", Image: "echo", Command: []string{s.self, "echo-server"}}},
	}}
	grace := int64(5)
	pod.Spec.TerminationGracePeriodSeconds = &grace
	change(pod, &pod.Spec.Containers[0])
	_, err := s.client.CoreV1().Pods(s.namespace).Create(ctx, pod, metav1.CreateOptions{})
	return err
}

func (s *smoke) pod(ctx context.Context, name string) (*v1.Pod, error) {
	return s.client.CoreV1().Pods(s.namespace).Get(ctx, name, metav1.GetOptions{})
}

// awaitPod waits until a pod is as it should be.
func (s *smoke) awaitPod(ctx context.Context, name string, good func(*v1.Pod) bool) (*v1.Pod, error) {
	var pod *v1.Pod
	err := await(ctx, "pod "+name, func() error {
		var err error
		if pod, err = s.pod(ctx, name); err != nil {
			return err
		}
		if !good(pod) {
			return fmt.Errorf("its status is %s", pod.Status.String())
		}
		return nil
	})
	return pod, err
}

// isReady is true for a pod that takes traffic.
func isReady(pod *v1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == v1.PodReady {
			return condition.Status == v1.ConditionTrue
		}
	}
	return false
}

// waitsWith makes a test for the reason why a pod's first container waits.
func waitsWith(reason string) func(*v1.Pod) bool {
	return func(pod *v1.Pod) bool {
		statuses := pod.Status.ContainerStatuses
		return len(statuses) > 0 && statuses[0].State.Waiting != nil && statuses[0].State.Waiting.Reason == reason
	}
}

// log reads what a container of a pod has written.
func (s *smoke) log(pod string) string {
	data, _ := os.ReadFile(filepath.Join(s.dir, "logs", s.namespace, pod, "main.log"))
	return string(data)
}
