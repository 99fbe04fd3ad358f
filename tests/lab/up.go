package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"backstay.dev/lab/kubelet"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const nodeName = "lab-node"

// lab is what `up` is told, and what it has made.
type lab struct {
	dir       string // LAB_DIR
	temporary bool   // dir is only a place to mount a tmpfs
	runner    string
	crds      string
	seed      string // folder of an earlier lab that a new one begins as; may be empty
	contour   string // empty: no gateway
	envoy     string
	fsync     bool

	self  string
	parts *parts
	admin *rest.Config
}

// runUp starts a lab in the namespaces that it is in, runs a command in it, and
// returns the command's exit status. The caller ends the namespaces, and with
// them all that runs.
func runUp(args []string) int {
	var l lab
	flags := flag.NewFlagSet("up", flag.ExitOnError)
	flags.StringVar(&l.dir, "dir", "", "the lab's folder")
	flags.BoolVar(&l.temporary, "temporary", false, "mount a tmpfs there that ends with the lab")
	flags.StringVar(&l.runner, "runner", "", "the program lab-run")
	flags.StringVar(&l.crds, "crds", "", "folder of CRD files")
	flags.StringVar(&l.seed, "seed", "", "folder of an ended lab to begin from, so that the first seconds of a cluster are saved")
	flags.StringVar(&l.contour, "contour", "", "the program contour; empty: no gateway")
	flags.StringVar(&l.envoy, "envoy", "", "the program envoy")
	flags.BoolVar(&l.fsync, "fsync", false, "let etcd sync to disk")
	_ = flags.Parse(args)
	if l.dir == "" || l.runner == "" || flags.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: lab up --dir DIR --runner PROGRAM … -- COMMAND…: meant to be called by `with`")
		return 2
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	ctx, cancel := context.WithCancel(context.Background())
	started := make(chan error, 1)
	go func() { started <- l.start(ctx) }()
	select {
	case err := <-started:
		if err != nil {
			fmt.Fprintln(os.Stderr, "lab:", err)
			cancel()
			return 125
		}
	case s := <-signals:
		cancel()
		return 128 + int(s.(syscall.Signal))
	}
	status := l.run(flags.Args(), signals)
	l.parts.close()
	cancel()
	return status
}

// start brings the lab up and returns when pods can be made.
func (l *lab) start(ctx context.Context) error {
	if os.Getpid() == 1 {
		return errors.New("only below `lab-run launch`")
	}
	var err error
	if l.self, err = os.Executable(); err != nil {
		return err
	}
	l.parts = &parts{dir: l.dir}
	if err := l.mount(); err != nil {
		return err
	}
	if err := kubelet.SetUpNode(); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if err := l.plant(); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	if err := writeCredentials(l.dir); err != nil {
		return err
	}
	if l.admin, err = clientcmd.BuildConfigFromFlags("", filepath.Join(l.dir, "admin.kubeconfig")); err != nil {
		return err
	}
	l.admin.QPS, l.admin.Burst = 500, 1000
	if err := serveControl(l.parts); err != nil {
		return err
	}
	if err := l.startServer(); err != nil {
		return err
	}
	return l.prepareCluster(ctx)
}

// mount gives the lab a tmpfs: for the whole folder, or, where somebody wants
// to keep the folder, for what must not be kept.
func (l *lab) mount() error {
	run := filepath.Join(l.dir, "run")
	point := run
	if l.temporary {
		point = l.dir
	}
	if err := os.MkdirAll(point, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", point, "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return fmt.Errorf("tmpfs on %s: %w", point, err)
	}
	return os.MkdirAll(run, 0o755)
}

// plant copies the seed into a new folder: the store of a cluster that has its
// roles, its CRDs and its node, and the keys that belong to it.
func (l *lab) plant() error {
	if _, err := os.Stat(l.at("etcd")); l.seed == "" || err == nil {
		return nil
	}
	for _, part := range []string{"certs", "users", "parts", "etcd"} {
		if err := os.CopyFS(l.at(part), os.DirFS(filepath.Join(l.seed, part))); err != nil {
			return err
		}
	}
	for _, file := range []string{"tokens.csv", "admin.kubeconfig"} {
		data, err := os.ReadFile(filepath.Join(l.seed, file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(l.at(file), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// startServer starts etcd and the API server, and returns once that answers at
// all: it is not ready then, but knows the administrator.
func (l *lab) startServer() error {
	at := l.at
	etcd := []string{l.self, "etcd", "--data", at("etcd")}
	if l.fsync {
		etcd = append(etcd, "--fsync")
	}
	if err := l.parts.add("etcd", dials("127.0.0.1:2379"), etcd...); err != nil {
		return err
	}
	if err := l.parts.await("etcd", 30*time.Second); err != nil {
		return err
	}
	if err := os.WriteFile(at("parts/audit.yaml"), []byte(auditPolicy), 0o644); err != nil {
		return err
	}
	return l.parts.add("apiserver", l.asks("/readyz"), l.self, "kube-apiserver",
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address="+serverAddress, "--secure-port=443", "--advertise-address="+serverAddress,
		"--tls-cert-file="+at("certs/apiserver.crt"), "--tls-private-key-file="+at("certs/apiserver.key"),
		"--client-ca-file="+at("certs/ca.crt"), "--token-auth-file="+at("tokens.csv"),
		"--service-account-key-file="+at("certs/accounts.key"), "--service-account-signing-key-file="+at("certs/accounts.key"),
		"--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=Node,RBAC",
		"--service-cluster-ip-range=10.96.0.0/16", "--kubelet-preferred-address-types=InternalIP",
		"--audit-policy-file="+at("parts/audit.yaml"), "--audit-log-path="+at("audit.log"),
		"--profiling=false",
	)
}

// startRest starts all that needs the API server. The controllers and the
// scheduler would waste seconds if they came before their rights.
func (l *lab) startRest(ctx context.Context) error {
	at := l.at
	if err := l.parts.add("kubelet", nil, l.self, "kubelet", "--dir", l.dir, "--runner", l.runner); err != nil {
		return err
	}
	if err := await(ctx, "rights", l.asks("/healthz/poststarthook/rbac/bootstrap-roles")); err != nil {
		return err
	}
	if err := l.parts.add("controller-manager", nil, l.self, "kube-controller-manager",
		"--kubeconfig="+at("parts/controller-manager.kubeconfig"),
		"--service-account-private-key-file="+at("certs/accounts.key"), "--root-ca-file="+at("certs/ca.crt"),
		"--use-service-account-credentials", "--leader-elect=false", "--secure-port=0",
		"--kube-api-qps=500", "--kube-api-burst=1000",
		"--node-monitor-period=500ms", "--controllers=*,-nodeipam", "--profiling=false",
	); err != nil {
		return err
	}
	config := fmt.Sprintf(schedulerConfig, at("parts/scheduler.kubeconfig"))
	if err := os.WriteFile(at("parts/scheduler.yaml"), []byte(config), 0o644); err != nil {
		return err
	}
	return l.parts.add("scheduler", nil, l.self, "kube-scheduler", "--config="+at("parts/scheduler.yaml"), "--secure-port=0")
}

// auditPolicy has each request in audit.log once, when it has been answered:
// who, which verb on what, and the verdict.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
`

const schedulerConfig = `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection:
  kubeconfig: %s
  qps: 500
  burst: 1000
leaderElection:
  leaderElect: false
`

// dials makes the question whether somebody listens at an address, or at the
// path of a socket.
func dials(address string) func() error {
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	return func() error {
		connection, err := net.DialTimeout(network, address, time.Second)
		if err == nil {
			connection.Close()
		}
		return err
	}
}

// at is a path in the lab's folder.
func (l *lab) at(path string) string { return filepath.Join(l.dir, path) }

// asks makes a question to the API server, which is answered by 200 or an error.
func (l *lab) asks(path string) func() error {
	client, clientErr := rest.HTTPClientFor(l.admin)
	return func() error {
		if clientErr != nil {
			return clientErr
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, l.admin.Host+path, nil)
		if err != nil {
			return err
		}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return errors.New(path + ": " + answer.Status)
		}
		return nil
	}
}

// run is the command's life in the lab. Signals go on to it; one that does not
// heed them for ten seconds is killed.
func (l *lab) run(words []string, signals <-chan os.Signal) int {
	command := exec.Command(words[0], words[1:]...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	for _, variable := range os.Environ() {
		// There is no way out of the lab, so no proxy either.
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasSuffix(strings.ToLower(name), "_proxy") {
			command.Env = append(command.Env, variable)
		}
	}
	command.Env = append(command.Env, "KUBECONFIG="+filepath.Join(l.dir, "admin.kubeconfig"), "LAB_DIR="+l.dir, "LAB_BIN="+l.self)
	if l.contour != "" {
		command.Env = append(command.Env, "LAB_GATEWAY="+gatewayURL)
	}
	if err := command.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 127
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = command.Wait()
	}()
	var patience <-chan time.Time
	for {
		select {
		case s := <-signals:
			_ = command.Process.Signal(s)
			if patience == nil && s != syscall.SIGINT {
				patience = time.After(10 * time.Second)
			}
		case <-patience:
			_ = command.Process.Kill()
		case <-over:
			state := command.ProcessState
			if wait, ok := state.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
				return 128 + int(wait.Signal())
			}
			return state.ExitCode()
		}
	}
}
