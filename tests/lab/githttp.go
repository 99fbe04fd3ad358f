package main

import (
	"bytes"
	"crypto/subtle"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// runGitHTTP serves the repositories below --root over smart HTTP, for reading
// and for pushing, until it is killed.
func runGitHTTP(args []string) int {
	flags := flag.NewFlagSet("git-http", flag.ExitOnError)
	root := flags.String("root", ".", "folder of the repositories")
	listen := flags.String("listen", "127.0.0.1:0", "host:port; the real one is the first line on stdout")
	user := flags.String("user", "", "name for basic authentication; empty: nobody is asked")
	password := flags.String("password", "", "password for it")
	certificate := flags.String("tls-cert", "", "file of a certificate; empty: plain HTTP")
	key := flags.String("tls-key", "", "file of its key")
	logFile := flags.String("log", "", "file that gets a line for each request: time, user, method, URI, status")
	_ = flags.Parse(args)

	git, err := exec.LookPath("git")
	if err != nil {
		return complain("git-http", err)
	}
	folder, err := filepath.Abs(*root)
	if err != nil {
		return complain("git-http", err)
	}
	backend := func(name string) http.Handler {
		return &cgi.Handler{
			Path: git, Args: []string{"http-backend"}, Dir: folder, Stderr: os.Stderr,
			Env: []string{
				"GIT_PROJECT_ROOT=" + folder, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=" + name,
				"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=http.receivepack", "GIT_CONFIG_VALUE_0=true",
				"GIT_CONFIG_KEY_1=safe.directory", "GIT_CONFIG_VALUE_1=*",
			},
			InheritEnv: []string{"PATH", "HOME"},
		}
	}
	var handler http.Handler = http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		name, given, ok := request.BasicAuth()
		if *user != "" && (!ok || name != *user || subtle.ConstantTimeCompare([]byte(given), []byte(*password)) != 1) {
			answer.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(answer, "who are you?", http.StatusUnauthorized)
			return
		}
		if err := measure(answer, request); err != nil {
			http.Error(answer, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		backend(name).ServeHTTP(answer, request)
	})
	if *logFile != "" {
		file, err := os.OpenFile(*logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return complain("git-http", err)
		}
		defer file.Close()
		handler = logged(handler, file)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return complain("git-http", err)
	}
	fmt.Println(listener.Addr())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	if *certificate != "" {
		return complain("git-http", server.ServeTLS(listener, *certificate, *key))
	}
	return complain("git-http", server.Serve(listener))
}

// largestPush is the most that a request may bring, in bytes.
const largestPush = 64 << 20

// measure reads a body whose length the client did not say: CGI wants to know
// it beforehand, and a push comes in chunks.
func measure(answer http.ResponseWriter, request *http.Request) error {
	if request.ContentLength >= 0 && len(request.TransferEncoding) == 0 {
		return nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(answer, request.Body, largestPush))
	if err != nil {
		return err
	}
	request.Body, request.ContentLength, request.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	return nil
}

// logged writes one line for each request, once it has been answered.
func logged(next http.Handler, file *os.File) http.Handler {
	var mu sync.Mutex
	return http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		seen := &statusSeen{ResponseWriter: answer, status: http.StatusOK}
		next.ServeHTTP(seen, request)
		name, _, _ := request.BasicAuth()
		if name == "" {
			name = "-"
		}
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(file, "%s %s %s %s %d\n", time.Now().UTC().Format(time.RFC3339Nano), name, request.Method, request.RequestURI, seen.status)
	})
}

type statusSeen struct {
	http.ResponseWriter
	status int
}

func (s *statusSeen) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap lets the CGI handler flush.
func (s *statusSeen) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func complain(what string, err error) int {
	fmt.Fprintf(os.Stderr, "lab %s: %v\n", what, err)
	return 1
}
