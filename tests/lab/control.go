package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// serveControl answers `lab part` on a socket in the lab's folder. A request is
// one line, `ACTION NAME`; the answer is `ok` and what there is to say, or why not.
func serveControl(ps *parts) error {
	path := controlSocket(ps.dir)
	_ = os.Remove(path)
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer connection.Close()
				line, err := bufio.NewReader(connection).ReadString('\n')
				if err != nil {
					return
				}
				action, name, _ := strings.Cut(strings.TrimSpace(line), " ")
				said, err := ps.act(action, name)
				if err != nil {
					fmt.Fprintln(connection, err)
					return
				}
				fmt.Fprintf(connection, "ok\n%s", said)
			}()
		}
	}()
	return nil
}

// controlSocket is below run/: the path of a socket must be short, and that of
// a folder somebody chose need not allow sockets.
func controlSocket(dir string) string { return filepath.Join(dir, "run", "control") }

// runPart is `lab part stop|cont|kill|start NAME`, or `list`.
func runPart(args []string) int {
	dir := os.Getenv("LAB_DIR")
	if dir == "" || len(args) == 0 || len(args) > 2 || len(args) == 1 && args[0] != "list" {
		fmt.Fprintln(os.Stderr, "usage: lab part stop|cont|kill|start NAME, or lab part list, with LAB_DIR set")
		return 2
	}
	connection, err := net.Dial("unix", controlSocket(dir))
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab part:", err)
		return 1
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(2 * startLimit))
	fmt.Fprintln(connection, strings.Join(args, " "))
	answer, err := io.ReadAll(connection)
	said, good := strings.CutPrefix(string(answer), "ok\n")
	if err != nil || !good {
		fmt.Fprintln(os.Stderr, "lab part:", strings.TrimSpace(string(answer)))
		return 1
	}
	fmt.Print(said)
	return 0
}
