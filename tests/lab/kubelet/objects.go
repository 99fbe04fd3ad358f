package kubelet

import (
	"context"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// requestLimit bounds each request to the API server, so that one that hangs
// holds a pod up for seconds and not for ever.
const requestLimit = 5 * time.Second

// objects reads ConfigMaps and Secrets. Each read asks the API server; where
// that fails to answer, the last answer serves, so that a container can restart
// while the API server is away.
type objects struct {
	client kubernetes.Interface

	mu      sync.Mutex
	configs map[string]*v1.ConfigMap
	secrets map[string]*v1.Secret
}

func newObjects(client kubernetes.Interface) *objects {
	return &objects{client: client, configs: map[string]*v1.ConfigMap{}, secrets: map[string]*v1.Secret{}}
}

func (o *objects) configMap(namespace, name string) (*v1.ConfigMap, error) {
	return read(o, o.configs, namespace+"/"+name, func(ctx context.Context) (*v1.ConfigMap, error) {
		return o.client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	})
}

func (o *objects) secret(namespace, name string) (*v1.Secret, error) {
	return read(o, o.secrets, namespace+"/"+name, func(ctx context.Context) (*v1.Secret, error) {
		return o.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	})
}

func read[T any](o *objects, known map[string]*T, key string, get func(context.Context) (*T, error)) (*T, error) {
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	object, err := get(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err == nil:
		known[key] = object
		return object, nil
	case apierrors.IsNotFound(err):
		delete(known, key)
		return nil, err
	case known[key] != nil:
		return known[key], nil
	default:
		return nil, err
	}
}
