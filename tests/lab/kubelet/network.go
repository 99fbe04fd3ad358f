package kubelet

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Addresses of the lab. The bridge is the node; pods follow in its range, and
// the whole service range is local to the node, where the API server listens.
var (
	podRange     = netip.MustParsePrefix("10.244.0.0/16")
	nodeAddress  = netip.MustParseAddr("10.244.0.1")
	firstPod     = netip.MustParseAddr("10.244.0.16")
	serviceRange = "10.96.0.0/16"
)

const (
	bridgeName = "lab0"
	apiServer  = "10.96.0.1" // listens there itself, as the Service `kubernetes`
)

// SetUpNode gives the lab's network namespace its addresses: loopback, the
// bridge of the pods, and the service range. Doing it twice does no harm.
func SetUpNode() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	_ = netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}})
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	address, err := netlink.ParseAddr(fmt.Sprintf("%s/%d", nodeAddress, podRange.Bits()))
	if err != nil {
		return err
	}
	if err := netlink.AddrReplace(bridge, address); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return err
	}
	_, services, err := net.ParseCIDR(serviceRange)
	if err != nil {
		return err
	}
	return netlink.RouteReplace(&netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: services, Table: unix.RT_TABLE_LOCAL,
		Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
	})
}

// network hands out pod addresses and makes the pods' network namespaces. Each
// is kept by a file in dir, so that it outlives the kubelet.
type network struct {
	dir string

	mu   sync.Mutex
	next netip.Addr
	used map[netip.Addr]bool
}

func newNetwork(dir string) (*network, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return &network{dir: dir, next: firstPod, used: map[netip.Addr]bool{}}, nil
}

// reserve marks an address of an adopted pod as taken.
func (n *network) reserve(address netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.used[address] = true
	if n.next.Compare(address) <= 0 {
		n.next = address.Next()
	}
}

// allocate takes the next free address. Addresses are used again as late as
// possible, so that nobody talks to a successor by mistake.
func (n *network) allocate() (netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for range 1 << 16 {
		address := n.next
		n.next = n.next.Next()
		if !podRange.Contains(n.next.Next()) { // the last one is for broadcasts
			n.next = firstPod
		}
		if !n.used[address] {
			n.used[address] = true
			return address, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no free pod address")
}

func (n *network) release(address netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.used, address)
}

func (n *network) path(pod string) string { return filepath.Join(n.dir, pod) }

// create makes the namespace of a pod: eth0 with the address, joined to the
// bridge, which is also the default route.
func (n *network) create(pod string, address netip.Addr) error {
	path := n.path(pod)
	if err := newNamespace(path); err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	namespace, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	defer namespace.Close()
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	outside := linkName(pod)
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: outside, MasterIndex: bridge.Attrs().Index},
		PeerName:  "eth0", PeerNamespace: netlink.NsFd(int(namespace)),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	link, err := netlink.LinkByName(outside)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	inside, err := netlink.NewHandleAt(namespace)
	if err != nil {
		return err
	}
	defer inside.Close()
	lo, err := inside.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := inside.LinkSetUp(lo); err != nil {
		return err
	}
	eth0, err := inside.LinkByName("eth0")
	if err != nil {
		return err
	}
	own, err := netlink.ParseAddr(fmt.Sprintf("%s/%d", address, podRange.Bits()))
	if err != nil {
		return err
	}
	if err := inside.AddrAdd(eth0, own); err != nil {
		return err
	}
	if err := inside.LinkSetUp(eth0); err != nil {
		return err
	}
	return inside.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: nodeAddress.AsSlice()})
}

// remove takes a pod's namespace down; what still runs in it is cut off.
func (n *network) remove(pod string) {
	if link, err := netlink.LinkByName(linkName(pod)); err == nil {
		_ = netlink.LinkDel(link)
	}
	path := n.path(pod)
	_ = unix.Unmount(path, unix.MNT_DETACH)
	_ = os.Remove(path)
}

func linkName(pod string) string {
	return fmt.Sprintf("p%x", sha256.Sum256([]byte(pod)))[:13]
}

// newNamespace makes a network namespace that the file at path keeps alive.
// Any user may bind low ports in it, as in the pods of a real runtime.
func newNamespace(path string) error {
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return err
	}
	failure := make(chan error)
	go func() {
		// The thread stays in the new namespace. It is never unlocked, so the Go
		// runtime ends it with this goroutine instead of using it for another.
		runtime.LockOSThread()
		failure <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			_ = os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0o644)
			return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}()
	}()
	return <-failure
}

// splitServer takes the URL of the API server apart.
func splitServer(server string) (host, port string, err error) {
	parsed, err := url.Parse(server)
	if err != nil {
		return "", "", err
	}
	if port = parsed.Port(); port == "" {
		port = "443"
	}
	return parsed.Hostname(), port, nil
}
