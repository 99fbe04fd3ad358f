// Package kubelet is a kubelet for tests. Its node is the lab's network
// namespace, and its containers are processes: in mount, process, host-name
// and network namespaces of their own, but with no cgroup and no image.
//
// What the Kubernetes API shows of it (states, reasons, conditions, times,
// back-off, the order of hooks and signals) is meant to be what the real
// kubelet shows; README.md says where it is not.
package kubelet

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
)

// Options are what the kubelet is told on its command line.
type Options struct {
	Kubeconfig string        // for the API server; also where pods find it
	Node       string        // name of the node
	Dir        string        // the lab's folder: logs/, pids/ and images.json
	State      string        // folder on a tmpfs: file systems, volumes, what survives a restart
	Runner     string        // the program lab-run
	Certs      string        // folder with kubelet.crt and kubelet.key; empty: no log server
	BackOff    time.Duration // first back-off of a crashing container; doubles
	BackOffMax time.Duration // its upper bound
	Refresh    time.Duration // how often volumes follow their ConfigMaps and Secrets
}

// Kubelet runs the pods that are bound to its node.
type Kubelet struct {
	Options
	client  kubernetes.Interface
	apiHost string // of the API server, as pods reach it
	apiPort string
	events  record.EventRecorder
	network *network
	objects *objects

	mu      sync.Mutex
	workers map[types.UID]*worker
}

// Run serves the node until ctx ends. Containers go on running then: the next
// kubelet with the same State finds them.
func Run(ctx context.Context, options Options) error {
	config, err := clientcmd.BuildConfigFromFlags("", options.Kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst, config.Timeout = 500, 1000, 0
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	host, port, err := splitServer(config.Host)
	if err != nil {
		return err
	}
	k := &Kubelet{Options: options, client: client, apiHost: host, apiPort: port, workers: map[types.UID]*worker{}}
	k.objects = newObjects(client)
	if k.network, err = newNetwork(filepath.Join(options.State, "netns")); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typed.EventSinkImpl{Interface: client.CoreV1().Events("")})
	k.events = broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "kubelet", Host: options.Node})

	if err := k.registerNode(ctx); err != nil {
		return err
	}
	go k.heartbeat(ctx)
	go k.serveServices(ctx)
	if options.Certs != "" {
		go k.serveLogs(ctx)
	}
	return k.watchPods(ctx)
}

// watchPods gives each pod of the node a worker and passes it what changes.
func (k *Kubelet) watchPods(ctx context.Context) error {
	selector := fields.OneTermEqualSelector("spec.nodeName", k.Node)
	source := cache.NewListWatchFromClient(k.client.CoreV1().RESTClient(), "pods", v1.NamespaceAll, selector)
	informer := cache.NewSharedInformer(source, &v1.Pod{}, 0)
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { k.update(ctx, object.(*v1.Pod)) },
		UpdateFunc: func(_, object any) { k.update(ctx, object.(*v1.Pod)) },
		DeleteFunc: func(object any) {
			if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = gone.Obj
			}
			if pod, ok := object.(*v1.Pod); ok {
				k.gone(pod)
			}
		},
	})
	if err != nil {
		return err
	}
	go informer.Run(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return ctx.Err()
	}
	known := map[string]bool{}
	for _, object := range informer.GetStore().List() {
		known[string(object.(*v1.Pod).UID)] = true
	}
	k.killOrphans(known)
	<-ctx.Done()
	return nil
}

func (k *Kubelet) update(ctx context.Context, pod *v1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.workers[pod.UID]
	if w == nil {
		if finished(pod) && pod.DeletionTimestamp == nil {
			return // ended before this kubelet began
		}
		w = newWorker(ctx, k, pod)
		k.workers[pod.UID] = w
		go w.run()
		return
	}
	w.post(func() { w.pod = pod })
}

// gone hears that a pod is no more in the API: its processes end at once.
func (k *Kubelet) gone(pod *v1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.workers[pod.UID]; w != nil {
		w.post(func() { w.removed = true })
	}
}

func (k *Kubelet) forget(uid types.UID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.workers, uid)
}

// killOrphans ends what an earlier kubelet left of pods that are no more.
func (k *Kubelet) killOrphans(known map[string]bool) {
	entries, _ := os.ReadDir(filepath.Join(k.State, "pods"))
	for _, entry := range entries {
		if known[entry.Name()] {
			continue
		}
		log.Printf("pod %s is gone: killing what is left of it", entry.Name())
		dir := filepath.Join(k.State, "pods", entry.Name())
		for _, p := range processesIn(dir) {
			p.kill()
		}
		k.network.remove(entry.Name())
		_ = os.RemoveAll(dir)
	}
}
