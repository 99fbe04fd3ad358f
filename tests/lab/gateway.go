package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
)

// A listener on port p is opened by Envoy on p + 8000, at every address, once
// there is a first route.
const (
	gatewayNamespace = "gateways"
	gatewayName      = "public"
	gatewayURL       = "http://10.244.0.1:8080"
)

// contourConfig is the one gateway that Contour serves.
const contourConfig = `gateway:
  gatewayRef:
    namespace: ` + gatewayNamespace + `
    name: ` + gatewayName + `
`

// startGateway starts Contour and Envoy, makes the GatewayClass and the
// Gateway, and waits until both run.
func (l *lab) startGateway(ctx context.Context, client kubernetes.Interface, objects dynamic.Interface) error {
	config := filepath.Join(l.dir, "parts", "contour.yaml")
	if err := os.WriteFile(config, []byte(contourConfig), 0o644); err != nil {
		return err
	}
	if err := applyCRDs(ctx, objects, filepath.Join(filepath.Dir(l.contour), "crds")); err != nil {
		return err
	}
	space := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: gatewayNamespace}}
	if _, err := client.CoreV1().Namespaces().Create(ctx, space, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	group := schema.GroupVersion{Group: "gateway.networking.k8s.io", Version: "v1"}
	class := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": group.String(), "kind": "GatewayClass", "metadata": map[string]any{"name": "contour"},
		"spec": map[string]any{"controllerName": "projectcontour.io/gateway-controller"},
	}}
	if _, err := objects.Resource(group.WithResource("gatewayclasses")).Create(ctx, class, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	gateways := objects.Resource(group.WithResource("gateways")).Namespace(gatewayNamespace)
	gateway := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": group.String(), "kind": "Gateway", "metadata": map[string]any{"name": gatewayName},
		"spec": map[string]any{"gatewayClassName": "contour", "listeners": []any{map[string]any{
			"name": "http", "protocol": "HTTP", "port": int64(80),
			"allowedRoutes": map[string]any{"namespaces": map[string]any{"from": "All"}},
		}}},
	}}
	if _, err := gateways.Create(ctx, gateway, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	if err := l.parts.add("contour", dials("127.0.0.1:8001"), l.contour, "serve",
		"--kubeconfig="+filepath.Join(l.dir, "parts", "contour.kubeconfig"), "--config-path="+config,
		"--insecure", "--xds-address=127.0.0.1", "--xds-port=8001",
		"--http-address=127.0.0.1", "--http-port=8002", "--health-address=127.0.0.1", "--health-port=8002",
		"--envoy-service-http-address=0.0.0.0", "--envoy-service-https-address=0.0.0.0",
		"--disable-leader-election",
	); err != nil {
		return err
	}
	bootstrap := filepath.Join(l.dir, "parts", "envoy.json")
	admin := l.at("run/envoy-admin")
	made := exec.CommandContext(ctx, l.contour, "bootstrap", bootstrap,
		"--xds-address=127.0.0.1", "--xds-port=8001", "--xds-resource-version=v3",
		"--admin-address="+admin)
	if output, err := made.CombinedOutput(); err != nil {
		return fmt.Errorf("contour bootstrap: %w: %s", err, output)
	}
	if err := l.parts.await("contour", startLimit); err != nil {
		return err
	}
	if err := l.parts.add("envoy", dials(admin), l.envoy, "-c", bootstrap, "--concurrency", "2",
		"--service-cluster", "gateways", "--service-node", "envoy", "--log-level", "warn", "--base-id", "0", "--use-dynamic-base-id"); err != nil {
		return err
	}
	if err := await(ctx, "gateway", func() error {
		object, err := gateways.Get(ctx, gatewayName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return conditionTrue(object, "Accepted")
	}); err != nil {
		return err
	}
	return l.parts.await("envoy", startLimit)
}
