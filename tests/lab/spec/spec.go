// Package spec holds what the kubelet and the runner say to each other: one
// JSON file asks for a container, another tells how it ended. It depends on
// the standard library alone, so that the runner stays small and starts fast.
package spec

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"
)

// Container is all that the runner needs to start one container's process.
// Paths are absolute and, unless said otherwise, those of the lab.
type Container struct {
	NetNS    string  `json:"netns,omitempty"` // file of the pod's network namespace; empty: the lab's own
	Hostname string  `json:"hostname"`
	Root     string  `json:"root"`           // lower side of the overlay
	Work     string  `json:"work"`           // folder on a tmpfs for the overlay's upper side and its mount
	Hide     string  `json:"hide,omitempty"` // a mount point that must not show in the container: the lab's folder
	Mounts   []Mount `json:"mounts"`         // in this order

	Args []string `json:"args"` // the first is looked up in the PATH of Env, inside the container
	Env  []string `json:"env"`  // the whole environment, NAME=value
	Dir  string   `json:"dir"`  // inside the container; made if it is missing

	UID          int   `json:"uid"`
	GID          int   `json:"gid"`
	Groups       []int `json:"groups"`
	ReadOnlyRoot bool  `json:"readOnlyRoot"`
	NoNewPrivs   bool  `json:"noNewPrivs"`
	DropAll      bool  `json:"dropAll"` // no capability, not even for uid 0

	Log         string `json:"log"`                   // both outputs are appended to this file
	Exit        string `json:"exit"`                  // Exit is written here, atomically, when the process has ended
	Pid         string `json:"pid"`                   // the process's id in the lab is written here
	Termination string `json:"termination,omitempty"` // file behind Message
	MessagePath string `json:"messagePath,omitempty"` // where the container sees it
}

// Mount binds Source (a file or a folder) to Target inside the container.
type Mount struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly"`
}

// Exit tells how a container's process ended.
type Exit struct {
	Code     int       `json:"code"`   // 128 + signal where a signal ended it
	Signal   int       `json:"signal"` // 0 where it ended by itself
	Reason   string    `json:"reason"` // Completed, Error, or StartError when it never ran
	Message  string    `json:"message,omitempty"`
	Finished time.Time `json:"finished"`
}

// Read fills value from the JSON file at path.
func Read(path string, value any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, value)
}

// Write puts value at path as JSON: a reader sees the old file or the new one,
// never half of it.
func Write(path string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return WriteFile(path, data)
}

// WriteFile is Write for bytes. The file's folder is made if it is missing.
func WriteFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, data, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
