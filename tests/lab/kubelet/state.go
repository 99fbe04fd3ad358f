package kubelet

import (
	"encoding/json"
	"fmt"
	"log"
	"net/netip"
	"path/filepath"
	"time"

	"backstay.dev/lab/spec"
	v1 "k8s.io/api/core/v1"
)

// kept is what a pod's folder says of it, for the kubelet after this one.
type kept struct {
	Address    string                   `json:"address,omitempty"`
	PodIP      string                   `json:"podIP,omitempty"`
	Failed     string                   `json:"failed,omitempty"`
	Containers map[string]keptContainer `json:"containers"`
}

type keptContainer struct {
	Runs     int               `json:"runs"`
	Restarts int32             `json:"restarts"`
	State    v1.ContainerState `json:"state"`
	Last     v1.ContainerState `json:"last"`
	Started  bool              `json:"started"`
	Ready    bool              `json:"ready"`
	BackOff  time.Duration     `json:"backOff"`
	Next     time.Time         `json:"next"`
	ImageID  string            `json:"imageID"`
	Shim     int               `json:"shim,omitempty"` // 0: it does not run
}

// save writes the pod's state file when it changed.
func (w *worker) save() {
	state := kept{PodIP: w.podIP, Failed: w.failed, Containers: map[string]keptContainer{}}
	if w.address.IsValid() {
		state.Address = w.address.String()
	}
	for _, c := range append(append([]*container{}, w.inits...), w.mains...) {
		one := keptContainer{
			Runs: c.runs, Restarts: c.restarts, State: c.state, Last: c.last, Started: c.started,
			Ready: c.ready, BackOff: c.backOff, Next: c.next, ImageID: c.imageID,
		}
		if c.process != nil {
			one.Shim = c.process.shim
		}
		state.Containers[c.spec.Name] = one
	}
	data, err := json.Marshal(state)
	if err != nil || string(data) == w.saved {
		return
	}
	if err := spec.WriteFile(filepath.Join(w.dir, "state.json"), data); err != nil {
		log.Printf("pod %s: %v", w.name(), err)
		return
	}
	w.saved = string(data)
}

// restore takes up what an earlier kubelet left of the pod: its network and its
// processes, those too that have ended since.
func (w *worker) restore() {
	var state kept
	if spec.Read(filepath.Join(w.dir, "state.json"), &state) != nil {
		return
	}
	log.Printf("pod %s: found again", w.name())
	w.podIP, w.failed = state.PodIP, state.Failed
	if address, err := netip.ParseAddr(state.Address); err == nil {
		w.address = address
		if !w.pod.Spec.HostNetwork {
			w.k.network.reserve(address)
		}
	}
	for _, c := range append(append([]*container{}, w.inits...), w.mains...) {
		one, found := state.Containers[c.spec.Name]
		if !found {
			continue
		}
		c.runs, c.restarts, c.state, c.last = one.Runs, one.Restarts, one.State, one.Last
		c.started, c.ready, c.backOff, c.next, c.imageID = one.Started, one.Ready, one.BackOff, one.Next, one.ImageID
		if one.Shim == 0 {
			continue
		}
		path := filepath.Join(w.dir, "containers", fmt.Sprintf("%s-%d.json", c.spec.Name, c.runs-1))
		p, err := adoptProcess(path, one.Shim)
		if err != nil {
			log.Printf("pod %s: container %s: %v", w.name(), c.spec.Name, err)
			continue
		}
		w.attend(c, p)
	}
}
