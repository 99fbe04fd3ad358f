package kubelet

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"backstay.dev/lab/spec"
	securejoin "github.com/cyphar/filepath-securejoin"
	authentication "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// files is the content of a volume, by path.
type files map[string]volumeutil.FileProjection

// token is a service account token, asked for again when most of it is used up.
type token struct {
	value string
	renew time.Time
}

// prepareVolumes makes or updates the folders behind all volumes of the pod.
// Files change as they do under the real kubelet: a link is switched, so that
// nobody sees half of an update.
func (w *worker) prepareVolumes() error {
	for n := range w.pod.Spec.Volumes {
		volume := &w.pod.Spec.Volumes[n]
		if err := w.prepareVolume(volume); err != nil {
			return fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", volume.Name, err)
		}
	}
	return nil
}

func (w *worker) prepareVolume(volume *v1.Volume) error {
	dir := w.volumeDir(volume.Name)
	if volume.EmptyDir != nil {
		if _, err := os.Stat(dir); err == nil {
			return nil
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		mode := os.FileMode(0o777)
		if group := w.fsGroup(); group != nil {
			_ = os.Chown(dir, -1, int(*group))
			mode |= os.ModeSetgid
		}
		return os.Chmod(dir, mode)
	}
	if volume.HostPath != nil || volume.PersistentVolumeClaim != nil {
		source, err := w.hostFolder(volume)
		if err != nil {
			return err
		}
		w.folders[volume.Name] = source
		return nil
	}
	content, err := w.content(volume)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	writer, err := volumeutil.NewAtomicWriter(dir, "pod "+w.name())
	if err != nil {
		return err
	}
	return writer.Write(content, func(part string) error {
		group := w.fsGroup()
		if group == nil {
			return nil
		}
		return filepath.WalkDir(filepath.Join(dir, part), func(path string, _ fs.DirEntry, err error) error {
			_ = os.Lchown(path, -1, int(*group)) // may be refused where there is only one user
			return err
		})
	})
}

// content gathers the files of a volume that is made from API objects.
func (w *worker) content(volume *v1.Volume) (files, error) {
	all := files{}
	switch {
	case volume.ConfigMap != nil:
		source := volume.ConfigMap
		return all, w.addConfigMap(all, source.Name, source.Items, source.DefaultMode, source.Optional)
	case volume.Secret != nil:
		source := volume.Secret
		return all, w.addSecret(all, source.SecretName, source.Items, source.DefaultMode, source.Optional)
	case volume.DownwardAPI != nil:
		return all, w.addDownward(all, volume.DownwardAPI.Items, volume.DownwardAPI.DefaultMode)
	case volume.Projected != nil:
		mode := volume.Projected.DefaultMode
		for _, source := range volume.Projected.Sources {
			var err error
			switch {
			case source.ConfigMap != nil:
				err = w.addConfigMap(all, source.ConfigMap.Name, source.ConfigMap.Items, mode, source.ConfigMap.Optional)
			case source.Secret != nil:
				err = w.addSecret(all, source.Secret.Name, source.Secret.Items, mode, source.Secret.Optional)
			case source.DownwardAPI != nil:
				err = w.addDownward(all, source.DownwardAPI.Items, mode)
			case source.ServiceAccountToken != nil:
				err = w.addToken(all, volume.Name, source.ServiceAccountToken)
			default:
				err = fmt.Errorf("unsupported projection")
			}
			if err != nil {
				return nil, err
			}
		}
		return all, nil
	}
	return nil, fmt.Errorf("unsupported kind of volume")
}

func (w *worker) addConfigMap(all files, name string, items []v1.KeyToPath, mode *int32, optional *bool) error {
	object, err := w.k.objects.configMap(w.pod.Namespace, name)
	if err != nil {
		return unlessOptional(err, optional)
	}
	data := map[string][]byte{}
	for key, value := range object.Data {
		data[key] = []byte(value)
	}
	for key, value := range object.BinaryData {
		data[key] = value
	}
	return w.addKeys(all, data, items, mode, optional)
}

func (w *worker) addSecret(all files, name string, items []v1.KeyToPath, mode *int32, optional *bool) error {
	object, err := w.k.objects.secret(w.pod.Namespace, name)
	if err != nil {
		return unlessOptional(err, optional)
	}
	return w.addKeys(all, object.Data, items, mode, optional)
}

func (w *worker) addKeys(all files, data map[string][]byte, items []v1.KeyToPath, mode *int32, optional *bool) error {
	if len(items) == 0 {
		for key := range data {
			items = append(items, v1.KeyToPath{Key: key, Path: key})
		}
	}
	for _, item := range items {
		content, found := data[item.Key]
		if !found {
			if isTrue(optional) {
				continue
			}
			return fmt.Errorf("references non-existent key: %s", item.Key)
		}
		own := mode
		if item.Mode != nil {
			own = item.Mode
		}
		all[item.Path] = volumeutil.FileProjection{Data: content, Mode: w.mode(own)}
	}
	return nil
}

func (w *worker) addDownward(all files, items []v1.DownwardAPIVolumeFile, mode *int32) error {
	for _, item := range items {
		var value string
		switch {
		case item.FieldRef != nil:
			var err error
			if value, err = w.field(item.FieldRef.FieldPath); err != nil {
				return err
			}
		case item.ResourceFieldRef != nil:
			value = resourceField(w.pod, &w.pod.Spec.Containers[0], item.ResourceFieldRef)
		}
		own := mode
		if item.Mode != nil {
			own = item.Mode
		}
		all[item.Path] = volumeutil.FileProjection{Data: []byte(value), Mode: w.mode(own)}
	}
	return nil
}

// addToken asks for a token of the pod's account, bound to the pod, and again
// after four fifths of its life.
func (w *worker) addToken(all files, volume string, source *v1.ServiceAccountTokenProjection) error {
	key := volume + "/" + source.Path
	known := w.tokens[key]
	if time.Now().After(known.renew) {
		request := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{
			ExpirationSeconds: source.ExpirationSeconds,
			BoundObjectRef:    &authentication.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: w.pod.Name, UID: w.pod.UID},
		}}
		if source.Audience != "" {
			request.Spec.Audiences = []string{source.Audience}
		}
		ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
		defer cancel()
		asked := time.Now()
		answer, err := w.k.client.CoreV1().ServiceAccounts(w.pod.Namespace).CreateToken(ctx, w.pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
		switch {
		case err == nil:
			life := answer.Status.ExpirationTimestamp.Sub(asked)
			known = token{value: answer.Status.Token, renew: asked.Add(life * 4 / 5)}
			w.tokens[key] = known
		case known.value == "" || apierrors.IsNotFound(err):
			return fmt.Errorf("failed to fetch token: %w", err)
		}
	}
	// Whoever the container runs as can read it: the file is in this pod alone.
	all[source.Path] = volumeutil.FileProjection{Data: []byte(known.value), Mode: 0o644}
	return nil
}

// mode is a file's mode; a group of the volumes may always read.
func (w *worker) mode(declared *int32) int32 {
	mode := int32(0o644)
	if declared != nil {
		mode = *declared
	}
	if w.fsGroup() != nil {
		mode |= 0o440
	}
	return mode
}

func (w *worker) fsGroup() *int64 {
	if w.pod.Spec.SecurityContext == nil {
		return nil
	}
	return w.pod.Spec.SecurityContext.FSGroup
}

// hostFolder resolves a folder of the machine, named in the pod or through a
// claim and its volume.
func (w *worker) hostFolder(volume *v1.Volume) (string, error) {
	if volume.HostPath != nil {
		path := volume.HostPath.Path
		if kind := volume.HostPath.Type; kind != nil && *kind == v1.HostPathDirectoryOrCreate {
			_ = os.MkdirAll(path, 0o755)
		}
		_, err := os.Stat(path)
		return path, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	claim, err := w.k.client.CoreV1().PersistentVolumeClaims(w.pod.Namespace).Get(ctx, volume.PersistentVolumeClaim.ClaimName, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	backing, err := w.k.client.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	switch {
	case backing.Spec.HostPath != nil:
		return backing.Spec.HostPath.Path, os.MkdirAll(backing.Spec.HostPath.Path, 0o777)
	case backing.Spec.Local != nil:
		return backing.Spec.Local.Path, nil
	}
	return "", fmt.Errorf("PersistentVolume %s is neither hostPath nor local", backing.Name)
}

func (w *worker) volumeDir(name string) string { return filepath.Join(w.dir, "volumes", name) }

// mounts lists what the container sees of the pod's volumes. What comes from
// API objects is read-only, whatever the container says.
func (w *worker) mounts(c *v1.Container, env map[string]string) ([]spec.Mount, error) {
	sources := map[string]*v1.Volume{}
	for n := range w.pod.Spec.Volumes {
		sources[w.pod.Spec.Volumes[n].Name] = &w.pod.Spec.Volumes[n]
	}
	var mounts []spec.Mount
	for _, mount := range c.VolumeMounts {
		volume := sources[mount.Name]
		if volume == nil {
			return nil, fmt.Errorf("no volume %q", mount.Name)
		}
		source, writable := w.volumeDir(mount.Name), volume.EmptyDir != nil
		if folder, ok := w.folders[mount.Name]; ok {
			source, writable = folder, true
		}
		part := mount.SubPath
		if mount.SubPathExpr != "" {
			part = expansion.Expand(mount.SubPathExpr, expansion.MappingFuncFor(env))
		}
		if part != "" {
			path, err := securejoin.SecureJoin(source, part)
			if err != nil {
				return nil, err
			}
			if _, err := os.Stat(path); err != nil {
				if !writable {
					return nil, fmt.Errorf("failed to prepare subPath for volumeMount %q: %w", mount.Name, err)
				}
				if err := os.MkdirAll(path, 0o777); err != nil {
					return nil, err
				}
			}
			source = path
		}
		target := mount.MountPath
		if !strings.HasPrefix(target, "/") {
			target = "/" + target
		}
		mounts = append(mounts, spec.Mount{Source: source, Target: target, ReadOnly: mount.ReadOnly || !writable})
	}
	return mounts, nil
}
