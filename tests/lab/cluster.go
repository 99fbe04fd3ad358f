package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"
)

// startLimit bounds how long a lab may take to be ready.
const startLimit = time.Minute

var crdResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// prepareCluster applies the CRDs, starts the gateway if there is one, and
// waits until a pod that is made now would run.
func (l *lab) prepareCluster(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	objects, err := dynamic.NewForConfig(l.admin)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(l.admin)
	if err != nil {
		return err
	}
	names, err := applyCRDs(ctx, objects, l.crds)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := await(ctx, "CRD "+name, func() error { return established(ctx, objects, name) }); err != nil {
			return err
		}
	}
	if l.contour != "" {
		if err := l.startGateway(ctx, client, objects); err != nil {
			return err
		}
	}
	if err := await(ctx, "node", func() error { return nodeReady(ctx, client) }); err != nil {
		return err
	}
	return await(ctx, "service account", func() error {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// await asks again and again until there is no error, or ctx ends.
func await(ctx context.Context, what string, ask func() error) error {
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not ready in time: %w", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func nodeReady(ctx context.Context, client kubernetes.Interface) error {
	node, err := client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("node has the taint %s", node.Spec.Taints[0].Key)
	}
	return nil
}

// applyCRDs creates the CRDs of all files of a folder, and returns their names.
func applyCRDs(ctx context.Context, objects dynamic.Interface, dir string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, path := range paths {
		object, err := readObject(path)
		if err != nil {
			return nil, err
		}
		if object.GetKind() != "CustomResourceDefinition" {
			continue
		}
		_, err = objects.Resource(crdResource).Create(ctx, object, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		names = append(names, object.GetName())
	}
	return names, nil
}

func readObject(path string) (*unstructured.Unstructured, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(data, &object.Object); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return object, nil
}

func established(ctx context.Context, objects dynamic.Interface, name string) error {
	crd, err := objects.Resource(crdResource).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	return conditionTrue(crd, "Established")
}

// conditionTrue finds a condition in status.conditions of any object.
func conditionTrue(object *unstructured.Unstructured, kind string) error {
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	for _, condition := range conditions {
		if fields, ok := condition.(map[string]any); ok && fields["type"] == kind {
			if fields["status"] == "True" {
				return nil
			}
			return fmt.Errorf("%s is %v: %v", kind, fields["status"], fields["message"])
		}
	}
	return errors.New("no condition " + kind)
}
