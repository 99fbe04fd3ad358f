package kubelet

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// image is what a container starts from. The zero value is the machine itself:
// the lower side of the file system is `/`, and there is no command.
type image struct {
	Root       string            `json:"root"`       // folder with the image's tree
	Env        map[string]string `json:"env"`        // before what the container declares
	Entrypoint []string          `json:"entrypoint"` // unless the container has a command
	Cmd        []string          `json:"cmd"`        // unless the container has a command or args
	User       string            `json:"user"`       // name or number, and :group
	WorkingDir string            `json:"workingDir"`
}

// absentRegistry is the registry that never answers, for images that
// images.json does not name.
const absentRegistry = "registry.invalid/"

// findImage looks a name up in images.json of the lab: first as it is, then
// without tag and digest. The file is read anew each time.
func (k *Kubelet) findImage(name string) (image, error) {
	known := map[string]image{}
	path := filepath.Join(k.Dir, "images.json")
	if data, err := os.ReadFile(path); err == nil {
		if err := json.Unmarshal(data, &known); err != nil {
			return image{}, fmt.Errorf("%s: %w", path, err)
		}
	}
	for _, candidate := range []string{name, bareName(name)} {
		if found, ok := known[candidate]; ok {
			if found.Root == "" {
				found.Root = "/"
			}
			return found, nil
		}
	}
	if strings.HasPrefix(name, absentRegistry) {
		return image{}, fmt.Errorf("failed to pull image %q: dial tcp: lookup registry.invalid: no such host", name)
	}
	return image{Root: "/"}, nil
}

// bareName drops the digest and the tag of an image's name, not a port.
func bareName(name string) string {
	name, _, _ = strings.Cut(name, "@")
	if colon := strings.LastIndex(name, ":"); colon > strings.LastIndex(name, "/") {
		name = name[:colon]
	}
	return name
}

// imageID is a stable stand-in for the digest that a pull would have found.
func imageID(name string) string {
	if strings.Contains(name, "@sha256:") {
		return name
	}
	return fmt.Sprintf("%s@sha256:%x", bareName(name), sha256.Sum256([]byte(name)))
}

// userOf reads the user of an image: numbers, or names in its own passwd file.
func (i image) userOf() (uid, gid int, err error) {
	if i.User == "" {
		return 0, 0, nil
	}
	user, group, _ := strings.Cut(i.User, ":")
	if uid, err = strconv.Atoi(user); err != nil {
		if uid, gid, err = lookUp(filepath.Join(i.Root, "etc/passwd"), user); err != nil {
			return 0, 0, err
		}
	}
	if group != "" {
		if gid, err = strconv.Atoi(group); err != nil {
			gid, _, err = lookUp(filepath.Join(i.Root, "etc/group"), group)
		}
	}
	return uid, gid, err
}

// lookUp finds a name in a passwd or group file and returns its two numbers.
func lookUp(path, name string) (first, second int, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) > 2 && fields[0] == name {
			first, err = strconv.Atoi(fields[2])
			if len(fields) > 3 {
				second, _ = strconv.Atoi(fields[3])
			}
			return first, second, err
		}
	}
	return 0, 0, fmt.Errorf("no %q in %s", name, path)
}
