package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
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
	if err := await(ctx, "API server", l.asks("/livez/ping")); err != nil {
		return err
	}
	if err := l.startRest(ctx); err != nil {
		return err
	}
	if err := l.parts.await("apiserver", startLimit); err != nil {
		return err
	}
	if err := applyCRDs(ctx, objects, l.crds); err != nil {
		return err
	}
	if err := await(ctx, "Gateway API", l.asks("/apis/gateway.networking.k8s.io/v1")); err != nil {
		return err
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

// applyCRDs creates the CRDs of all files of a folder, a few at a time, and
// waits until they are served.
func applyCRDs(ctx context.Context, objects dynamic.Interface, dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(4)
	for _, path := range paths {
		crds, err := readObjects(path)
		if err != nil {
			return err
		}
		for _, crd := range crds {
			group.Go(func() error { return applyCRD(ctx, objects, crd) })
		}
	}
	return group.Wait()
}

func applyCRD(ctx context.Context, objects dynamic.Interface, crd *unstructured.Unstructured) error {
	if crd.GetKind() != "CustomResourceDefinition" || established(ctx, objects, crd.GetName()) == nil {
		return nil
	}
	if err := await(ctx, crd.GetName(), func() error {
		_, err := objects.Resource(crdResource).Create(ctx, crd, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			err = nil
		}
		return err
	}); err != nil {
		return err
	}
	return await(ctx, crd.GetName(), func() error { return established(ctx, objects, crd.GetName()) })
}

// readObjects reads all documents of a YAML file.
func readObjects(path string) ([]*unstructured.Unstructured, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for document := range strings.SplitSeq(string(data), "\n---\n") {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if object.Object != nil {
			objects = append(objects, object)
		}
	}
	return objects, nil
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
