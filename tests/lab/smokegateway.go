package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// gateway tests that a route leads from the gateway to a pod.
func (s *smoke) gateway(config *rest.Config) {
	s.check("an HTTPRoute leads through the gateway to a pod", func(ctx context.Context) error {
		objects, err := dynamic.NewForConfig(config)
		if err != nil {
			return err
		}
		if err := s.create(ctx, "routed", func(*v1.Pod, *v1.Container) {}); err != nil {
			return err
		}
		if _, err := s.client.CoreV1().Services(s.namespace).Create(ctx, &v1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "routed"},
			Spec:       v1.ServiceSpec{Selector: map[string]string{"app": "routed"}, Ports: []v1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
		}, metav1.CreateOptions{}); err != nil {
			return err
		}
		route := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": map[string]any{"name": "routed"},
			"spec": map[string]any{
				"parentRefs": []any{map[string]any{"namespace": gatewayNamespace, "name": gatewayName}},
				"rules": []any{map[string]any{
					"matches":     []any{map[string]any{"path": map[string]any{"type": "PathPrefix", "value": "/"}}},
					"backendRefs": []any{map[string]any{"name": "routed", "port": int64(80)}},
				}},
			},
		}}
		routes := schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}
		if _, err := objects.Resource(routes).Namespace(s.namespace).Create(ctx, route, metav1.CreateOptions{}); err != nil {
			return err
		}
		address := strings.TrimPrefix(os.Getenv("LAB_GATEWAY"), "http://")
		return await(ctx, "route", func() error {
			got, err := get(ctx, address, "/")
			if err == nil && got != "routed" {
				err = fmt.Errorf("it answers %q", got)
			}
			return err
		})
	})
}

// as is a client of one of the lab's people.
func (s *smoke) as(name string) (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(s.dir, "users", name+".kubeconfig"))
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// lab is the program that this one is.
func (s *smoke) lab() string { return filepath.Join(filepath.Dir(s.self), "lab") }
