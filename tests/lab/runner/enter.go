package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"backstay.dev/lab/spec"
	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"
)

// enter turns this process, alone in its new namespaces, into the container's:
// it builds the file system, takes it as its root, gives up what it must not
// keep, and executes the command. It says on file 3 why it could not.
func enter(path string) int {
	complaints := os.NewFile(3, "complaints")
	unix.CloseOnExec(3)
	var container spec.Container
	err := spec.Read(path, &container)
	if err == nil {
		err = become(&container)
	}
	fmt.Fprint(complaints, err)
	return 128
}

func become(container *spec.Container) error {
	unix.Umask(0)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	root, err := build(container)
	if err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(container.Hostname)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	if err := pivot(root); err != nil {
		return fmt.Errorf("root folder: %w", err)
	}
	if err := os.Chdir(container.Dir); os.IsNotExist(err) {
		_ = os.MkdirAll(container.Dir, 0o755)
		err = os.Chdir(container.Dir)
		if err != nil {
			return fmt.Errorf("working folder: %w", err)
		}
	} else if err != nil {
		return fmt.Errorf("working folder: %w", err)
	}
	if err := demote(container); err != nil {
		return err
	}
	program, err := lookPath(container)
	if err != nil {
		return err
	}
	unix.Umask(0o022)
	return fmt.Errorf("%s: %w", program, syscall.Exec(program, container.Args, container.Env))
}

// build mounts the container's file system below Work and returns its root:
// an overlay whose lower side is the image, so that nothing of it is changed.
func build(container *spec.Container) (string, error) {
	root, err := overlay(container.Root, container.Work)
	if err != nil && container.Root == "/" {
		root, err = assemble(container.Work)
	}
	if err != nil {
		return "", err
	}
	if container.Root == "/" {
		// An overlay shows one file system: the others of the machine follow.
		for n, point := range machineMounts(container.Hide) {
			merged, err := overlay(point, filepath.Join(container.Work, fmt.Sprint("mount-", n)))
			if err == nil {
				_ = bind(root, spec.Mount{Source: merged, Target: point})
			}
		}
		_ = mountAt(root, "/run", "tmpfs", 0, "mode=755")
		for _, word := range container.Args {
			openWay(root, word)
		}
	}
	if err := mountAt(root, "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return "", err
	}
	if err := devices(root); err != nil {
		return "", err
	}
	_ = bind(root, spec.Mount{Source: "/sys", Target: "/sys", ReadOnly: true})
	if container.Termination != "" {
		container.Mounts = append(container.Mounts, spec.Mount{Source: container.Termination, Target: container.MessagePath})
	}
	for _, mount := range container.Mounts {
		if err := bind(root, mount); err != nil {
			return "", err
		}
	}
	if container.ReadOnlyRoot {
		if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return "", fmt.Errorf("read-only root: %w", err)
		}
	}
	return root, nil
}

// overlay mounts lower with a writable upper side in the folder work.
func overlay(lower, work string) (string, error) {
	upper, scratch, merged := filepath.Join(work, "upper"), filepath.Join(work, "work"), filepath.Join(work, "root")
	for _, folder := range []string{upper, scratch, merged} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return "", err
		}
	}
	options := "lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + scratch
	err := unix.Mount("overlay", merged, "overlay", 0, options)
	if err != nil { // without privileges over the machine, attributes must be a user's own
		err = unix.Mount("overlay", merged, "overlay", 0, options+",userxattr")
	}
	if err != nil {
		return "", fmt.Errorf("overlay of %s: %w", lower, err)
	}
	return merged, nil
}

// assemble builds a root from overlays of the machine's top-level folders: for
// who is not root on the machine, and may not lay one over the whole.
func assemble(work string) (string, error) {
	root := filepath.Join(work, "root")
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "mode=755"); err != nil {
		return "", fmt.Errorf("root: %w", err)
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		path := "/" + entry.Name()
		if target, err := os.Readlink(path); err == nil {
			_ = os.Symlink(target, root+path)
			continue
		}
		switch path {
		case "/proc", "/sys", "/dev", "/run":
			continue
		}
		if merged, err := overlay(path, filepath.Join(work, "top", entry.Name())); err == nil {
			_ = bind(root, spec.Mount{Source: merged, Target: path})
		} else {
			_ = bind(root, spec.Mount{Source: path, Target: path, ReadOnly: true})
		}
	}
	return root, nil
}

// openWay lets every user reach a program of the machine that lies below a
// folder of one user, such as a home. Only the container sees the change.
func openWay(root, program string) {
	if info, err := os.Stat(filepath.Join(root, program)); !filepath.IsAbs(program) || err != nil || info.IsDir() {
		return
	}
	for folder := filepath.Dir(program); folder != "/"; folder = filepath.Dir(folder) {
		if info, err := os.Stat(filepath.Join(root, folder)); err == nil && info.Mode()&0o001 == 0 {
			_ = os.Chmod(filepath.Join(root, folder), info.Mode()|0o111)
		}
	}
}

// machineMounts lists the mount points of real file systems besides the root.
func machineMounts(hide string) []string {
	data, _ := os.ReadFile("/proc/self/mountinfo")
	var points []string
	for line := range strings.Lines(string(data)) {
		left, right, found := strings.Cut(line, " - ")
		fields := strings.Fields(left)
		if !found || len(fields) < 5 {
			continue
		}
		point, kind, _ := strings.Cut(fields[4], "\\040")
		if kind != "" || point == "/" || point == hide || strings.HasPrefix(point, hide+"/") {
			continue
		}
		kind, _, _ = strings.Cut(right, " ")
		switch kind {
		case "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "overlay", "9p", "virtiofs", "nfs", "nfs4", "tmpfs":
		default:
			continue
		}
		first, _, _ := strings.Cut(strings.TrimPrefix(point, "/"), "/")
		if first == "proc" || first == "sys" || first == "dev" || first == "run" {
			continue
		}
		if info, err := os.Stat(point); err == nil && info.IsDir() {
			points = append(points, point)
		}
	}
	return points
}

// devices gives the container a /dev of its own with what every program expects.
func devices(root string) error {
	if err := mountAt(root, "/dev", "tmpfs", unix.MS_NOSUID, "mode=755,size=64k"); err != nil {
		return err
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := bind(root, spec.Mount{Source: "/dev/" + name, Target: "/dev/" + name}); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"} {
		_ = os.Symlink(target, filepath.Join(root, "dev", name))
	}
	_ = mountAt(root, "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
	return mountAt(root, "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=1777,size=64m")
}

func mountAt(root, target, kind string, flags uintptr, options string) error {
	point, err := securejoin.SecureJoin(root, target)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(point, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(kind, point, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// bind shows mount.Source at mount.Target below root. Links in the target are
// followed inside root, never out of it.
func bind(root string, mount spec.Mount) error {
	point, err := securejoin.SecureJoin(root, mount.Target)
	if err != nil {
		return err
	}
	info, err := os.Stat(mount.Source)
	if err != nil {
		return fmt.Errorf("mount %s: %w", mount.Target, err)
	}
	if info.IsDir() {
		err = os.MkdirAll(point, 0o755)
	} else if _, missing := os.Stat(point); missing != nil {
		if err = os.MkdirAll(filepath.Dir(point), 0o755); err == nil {
			err = os.WriteFile(point, nil, 0o644)
		}
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", mount.Target, err)
	}
	if err := unix.Mount(mount.Source, point, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s: %w", mount.Target, err)
	}
	if mount.ReadOnly {
		if err := unix.Mount("", point, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("mount %s read-only: %w", mount.Target, err)
		}
	}
	return nil
}

// pivot makes root the root folder of this mount namespace; the old one is gone.
func pivot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// demote gives up the privileges and takes the user that the container asks for.
func demote(container *spec.Container) error {
	if container.DropAll {
		for capability := range uintptr(64) {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err != nil {
				break
			}
		}
	}
	if container.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no new privileges: %w", err)
		}
	}
	if err := syscall.Setgroups(container.Groups); err != nil && len(container.Groups) > 0 {
		return fmt.Errorf("groups: %w", err)
	}
	if err := syscall.Setgid(container.GID); err != nil {
		return fmt.Errorf("group %d: %w", container.GID, err)
	}
	if err := syscall.Setuid(container.UID); err != nil {
		return fmt.Errorf("user %d: %w", container.UID, err)
	}
	// A change of user forgets that this process must die with its shim.
	return unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
}

// lookPath finds the program of the container's command as a shell would, with
// the container's PATH.
func lookPath(container *spec.Container) (string, error) {
	if len(container.Args) == 0 {
		return "", fmt.Errorf("no command")
	}
	name := container.Args[0]
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, variable := range container.Env {
		if list, found := strings.CutPrefix(variable, "PATH="); found {
			for _, folder := range filepath.SplitList(list) {
				file := filepath.Join(folder, name)
				if info, err := os.Stat(file); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
					return file, nil
				}
			}
		}
	}
	return "", fmt.Errorf("exec: %q: executable file not found in $PATH", name)
}
