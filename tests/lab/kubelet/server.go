package kubelet

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// serveLogs answers the API server's requests for the logs of containers. Logs
// of all runs of a container are one file; tailLines, limitBytes and follow
// work, previous and sinceSeconds are not told apart.
func (k *Kubelet) serveLogs(ctx context.Context) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", func(answer http.ResponseWriter, request *http.Request) {
		path := filepath.Join(k.Dir, "logs", filepath.Base(request.PathValue("namespace")), filepath.Base(request.PathValue("pod")), filepath.Base(request.PathValue("container"))+".log")
		file, err := os.Open(path)
		if err != nil {
			http.Error(answer, err.Error(), http.StatusNotFound)
			return
		}
		defer file.Close()
		query := request.URL.Query()
		if lines, err := strconv.Atoi(query.Get("tailLines")); err == nil {
			seekLines(file, lines)
		}
		if limit, err := strconv.ParseInt(query.Get("limitBytes"), 10, 64); err == nil {
			_, _ = io.Copy(answer, io.LimitReader(file, limit))
			return
		}
		_, _ = io.Copy(answer, file)
		if query.Get("follow") != "true" {
			return
		}
		flush := http.NewResponseController(answer)
		for request.Context().Err() == nil && ctx.Err() == nil {
			if n, err := io.Copy(answer, file); err != nil {
				return
			} else if n > 0 {
				_ = flush.Flush()
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	server := &http.Server{Addr: net.JoinHostPort(nodeAddress.String(), strconv.Itoa(logsPort)), Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	err := server.ListenAndServeTLS(filepath.Join(k.Certs, "kubelet.crt"), filepath.Join(k.Certs, "kubelet.key"))
	if ctx.Err() == nil {
		log.Printf("logs: %v", err)
	}
}

// seekLines moves to where the last lines of a file begin.
func seekLines(file *os.File, lines int) {
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return
	}
	at, seen, one := end, 0, make([]byte, 1)
	for at > 0 && seen <= lines {
		at--
		if _, err := file.ReadAt(one, at); err != nil {
			return
		}
		if one[0] == '\n' && at != end-1 {
			if seen++; seen == lines {
				at++
				break
			}
		}
	}
	if lines == 0 {
		at = end
	}
	_, _ = file.Seek(at, io.SeekStart)
}
