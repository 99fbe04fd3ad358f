package kubelet

import (
	"context"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	listers "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// services stands in for kube-proxy: it listens at the cluster address of each
// Service, for TCP, and passes a connection on to one of the ready endpoints,
// chosen by chance. An endpoint sees the node's address as the caller's.
type services struct {
	slices listers.EndpointSliceLister

	mu        sync.Mutex
	listening map[string]map[string]net.Listener // by namespace/name, by address:port
}

// serveServices follows all Services until ctx ends.
func (k *Kubelet) serveServices(ctx context.Context) {
	factory := informers.NewSharedInformerFactory(k.client, 0)
	s := &services{slices: factory.Discovery().V1().EndpointSlices().Lister(), listening: map[string]map[string]net.Listener{}}
	_, err := factory.Core().V1().Services().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { s.update(object.(*v1.Service)) },
		UpdateFunc: func(_, object any) { s.update(object.(*v1.Service)) },
		DeleteFunc: func(object any) {
			if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = gone.Obj
			}
			if service, ok := object.(*v1.Service); ok {
				s.set(service, nil)
			}
		},
	})
	if err != nil {
		log.Printf("services: %v", err)
		return
	}
	factory.Start(ctx.Done())
	<-ctx.Done()
}

func (s *services) update(service *v1.Service) {
	wanted := map[string]string{}
	address := service.Spec.ClusterIP
	if address != "" && address != v1.ClusterIPNone && address != apiServer {
		for _, port := range service.Spec.Ports {
			if port.Protocol == v1.ProtocolTCP || port.Protocol == "" {
				wanted[net.JoinHostPort(address, strconv.Itoa(int(port.Port)))] = port.Name
			}
		}
	}
	s.set(service, wanted)
}

// set makes the listeners of a Service those that are wanted: port names by
// address:port.
func (s *services) set(service *v1.Service, wanted map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := service.Namespace + "/" + service.Name
	have := s.listening[key]
	if have == nil {
		have = map[string]net.Listener{}
		s.listening[key] = have
	}
	for address, listener := range have {
		if _, keep := wanted[address]; !keep {
			listener.Close()
			delete(have, address)
		}
	}
	for address, port := range wanted {
		if have[address] != nil {
			continue
		}
		listener, err := net.Listen("tcp", address)
		if err != nil {
			log.Printf("service %s: %v", key, err)
			continue
		}
		have[address] = listener
		go s.accept(listener, service.Namespace, service.Name, port)
	}
	if len(have) == 0 {
		delete(s.listening, key)
	}
}

func (s *services) accept(listener net.Listener, namespace, name, port string) {
	for {
		caller, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer caller.Close()
			targets := s.targets(namespace, name, port)
			rand.Shuffle(len(targets), func(a, b int) { targets[a], targets[b] = targets[b], targets[a] })
			for _, target := range targets {
				if callee, err := net.DialTimeout("tcp", target, time.Second); err == nil {
					join(caller.(*net.TCPConn), callee.(*net.TCPConn))
					return
				}
			}
			_ = caller.(*net.TCPConn).SetLinger(0) // refuse it, as far as that goes by now
		}()
	}
}

// targets are the ready endpoints of a Service's port.
func (s *services) targets(namespace, name, port string) []string {
	found, err := s.slices.EndpointSlices(namespace).List(labels.SelectorFromSet(labels.Set{discovery.LabelServiceName: name}))
	if err != nil {
		return nil
	}
	var targets []string
	for _, slice := range found {
		for _, one := range slice.Ports {
			if one.Port == nil || one.Name != nil && *one.Name != port {
				continue
			}
			for _, endpoint := range slice.Endpoints {
				if endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready {
					targets = append(targets, net.JoinHostPort(endpoint.Addresses[0], strconv.Itoa(int(*one.Port))))
				}
			}
		}
	}
	return targets
}

// join copies both ways until both sides have said all.
func join(caller, callee *net.TCPConn) {
	defer callee.Close()
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(callee, caller)
		_ = callee.CloseWrite()
		close(done)
	}()
	_, _ = io.Copy(caller, callee)
	_ = caller.CloseWrite()
	<-done
}
