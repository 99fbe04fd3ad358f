package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

// runEtcd runs a store of one member in the folder --data, for clients at
// --listen (host:port, plain HTTP: it never leaves the lab's network).
//
// By default nothing is synced to disk, which is quick and survives the death
// of the process, but not of the machine. --fsync makes it as durable as usual.
func runEtcd(args []string) int {
	flags := flag.NewFlagSet("etcd", flag.ExitOnError)
	data := flags.String("data", "", "folder of the store")
	listen := flags.String("listen", "127.0.0.1:2379", "host:port for clients")
	peers := flags.String("peers", "127.0.0.1:2380", "host:port for members (there are no others)")
	fsync := flags.Bool("fsync", false, "sync every write to disk")
	_ = flags.Parse(args)

	wal.SegmentSizeBytes = 4 << 20 // allocated at once, and copied with the seed
	config := embed.NewConfig()
	config.Name = "lab"
	config.Dir = *data
	client, peer := url.URL{Scheme: "http", Host: *listen}, url.URL{Scheme: "http", Host: *peers}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.UnsafeNoFsync = !*fsync
	config.LogLevel = "warn"
	config.LogOutputs = []string{"stderr"}
	config.AutoCompactionMode = "periodic"
	config.AutoCompactionRetention = "10m"

	server, err := embed.StartEtcd(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		return 1
	}
	defer server.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-server.Server.ReadyNotify():
	case <-time.After(time.Minute):
		fmt.Fprintln(os.Stderr, "etcd: not ready after a minute")
		return 1
	case <-stop:
		return 0
	}
	select {
	case err := <-server.Err():
		fmt.Fprintln(os.Stderr, "etcd:", err)
		return 1
	case <-stop:
		return 0
	}
}
