// Package echo is the little server that tests run in pods. It looks nothing
// up, starts in milliseconds, and does what a test asks it to.
package echo

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// Run serves until SIGTERM and returns the exit status.
//
//	GET /             host name, one line
//	GET /healthz      200 ok, or 500 after /fail
//	GET /fail, /heal  switch /healthz
//	GET /env?name=N   value of a variable
//	GET /file?path=P  content of a file
//	GET /write?path=P tries to write: 200, or 403 with the reason
//	GET /id           uid, gid and groups
//	GET /exit?code=C  ends the process
func Run(args []string) int {
	flags := flag.NewFlagSet("echo-server", flag.ExitOnError)
	listen := flags.String("listen", "0.0.0.0:8080", "host:port")
	drain := flags.Duration("drain", 0, "how long to go on serving after SIGTERM")
	unhealthy := flags.Bool("unhealthy", false, "begin as after /fail")
	_ = flags.Parse(args)

	var failing atomic.Bool
	failing.Store(*unhealthy)
	name, _ := os.Hostname()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, name) })
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if failing.Load() {
			http.Error(w, "failing", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("/fail", func(http.ResponseWriter, *http.Request) {
		fmt.Println("asked for /fail")
		failing.Store(true)
	})
	mux.HandleFunc("/heal", func(http.ResponseWriter, *http.Request) { failing.Store(false) })
	mux.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, os.Getenv(r.FormValue("name")))
	})
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile(r.FormValue("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		_, _ = w.Write(data)
	})
	mux.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		if err := os.WriteFile(r.FormValue("path"), []byte("written\n"), 0o644); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
		}
	})
	mux.HandleFunc("/id", func(w http.ResponseWriter, _ *http.Request) {
		groups, _ := os.Getgroups()
		fmt.Fprintln(w, os.Getuid(), os.Getgid(), groups)
	})
	mux.HandleFunc("/exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		os.Exit(code)
	})
	server := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	fmt.Println("listening on", *listen)
	select {
	case err := <-ended:
		fmt.Fprintln(os.Stderr, err)
		return 1
	case s := <-stop:
		fmt.Println("signal", s)
	}
	time.Sleep(*drain)
	limit, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = server.Shutdown(limit)
	fmt.Println("ended")
	return 0
}
