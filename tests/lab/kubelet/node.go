package kubelet

import (
	"context"
	"encoding/json"
	"log"
	"runtime"
	"time"

	coordination "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	beat     = 10 * time.Second // between two signs of life
	logsPort = 10250
	version  = "v1.36.3"
)

// capacity is what the scheduler may hand out. Nothing enforces it.
func capacity() v1.ResourceList {
	return v1.ResourceList{
		v1.ResourceCPU:              resource.MustParse("16"),
		v1.ResourceMemory:           resource.MustParse("64Gi"),
		v1.ResourceEphemeralStorage: resource.MustParse("100Gi"),
		v1.ResourcePods:             resource.MustParse("500"),
	}
}

// registerNode makes the Node, unless it exists, and says that it is ready.
func (k *Kubelet) registerNode(ctx context.Context) error {
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: k.Node, Labels: map[string]string{
		v1.LabelHostname: k.Node, v1.LabelOSStable: "linux", v1.LabelArchStable: runtime.GOARCH,
	}}}
	var err error
	for range 100 { // the API server may be starting
		_, err = k.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
		if err == nil || apierrors.IsAlreadyExists(err) {
			if err = k.beatOnce(ctx); err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	return err
}

func (k *Kubelet) heartbeat(ctx context.Context) {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := k.beatOnce(ctx); err != nil {
				log.Printf("heartbeat: %v", err)
			}
		}
	}
}

// beatOnce renews the node's status and its Lease.
func (k *Kubelet) beatOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	now := metav1.Now()
	condition := func(kind v1.NodeConditionType, status v1.ConditionStatus, reason string) v1.NodeCondition {
		return v1.NodeCondition{Type: kind, Status: status, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	status := v1.NodeStatus{
		Capacity: capacity(), Allocatable: capacity(),
		Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: nodeAddress.String()}, {Type: v1.NodeHostName, Address: k.Node}},
		Conditions: []v1.NodeCondition{
			condition(v1.NodeReady, v1.ConditionTrue, "KubeletReady"),
			condition(v1.NodeMemoryPressure, v1.ConditionFalse, "KubeletHasSufficientMemory"),
			condition(v1.NodeDiskPressure, v1.ConditionFalse, "KubeletHasNoDiskPressure"),
			condition(v1.NodePIDPressure, v1.ConditionFalse, "KubeletHasSufficientPID"),
		},
		DaemonEndpoints: v1.NodeDaemonEndpoints{KubeletEndpoint: v1.DaemonEndpoint{Port: logsPort}},
		NodeInfo: v1.NodeSystemInfo{
			KubeletVersion: version, OperatingSystem: "linux", Architecture: runtime.GOARCH,
			ContainerRuntimeVersion: "lab://1", OSImage: "lab", MachineID: k.Node, SystemUUID: k.Node, BootID: k.Node,
		},
	}
	patch, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	node, err := k.client.CoreV1().Nodes().Patch(ctx, k.Node, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return err
	}
	return k.renewLease(ctx, node)
}

func (k *Kubelet) renewLease(ctx context.Context, node *v1.Node) error {
	leases := k.client.CoordinationV1().Leases(v1.NamespaceNodeLease)
	seconds, now := int32(40), metav1.NowMicro()
	lease := coordination.LeaseSpec{HolderIdentity: &k.Node, LeaseDurationSeconds: &seconds, RenewTime: &now}
	patch, err := json.Marshal(map[string]any{"spec": lease})
	if err != nil {
		return err
	}
	_, err = leases.Patch(ctx, k.Node, types.MergePatchType, patch, metav1.PatchOptions{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	_, err = leases.Create(ctx, &coordination.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: k.Node, Namespace: v1.NamespaceNodeLease, OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID},
		}}, Spec: lease,
	}, metav1.CreateOptions{})
	if apierrors.IsNotFound(err) { // the namespace is made by the API server in its first second
		return nil
	}
	return err
}
