package kubelet

import (
	"fmt"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment builds all variables of a container: the few that every container
// has, the image's, the ConfigMaps and Secrets of envFrom, and the declared
// ones, in this order; a later one wins. Nothing of the lab's own environment
// gets in.
func (w *worker) environment(c *v1.Container, from image) (map[string]string, error) {
	env := map[string]string{
		"PATH": defaultPath, "HOME": "/", "HOSTNAME": w.hostname(),
		"KUBERNETES_SERVICE_HOST": w.k.apiHost, "KUBERNETES_SERVICE_PORT": w.k.apiPort,
	}
	maps.Copy(env, from.Env)
	for _, source := range c.EnvFrom {
		values, err := w.envFrom(source)
		if err != nil {
			return nil, err
		}
		for name, value := range values {
			env[source.Prefix+name] = value
		}
	}
	// $(NAME) sees what came before it.
	expand := expansion.MappingFuncFor(env)
	for _, variable := range c.Env {
		if variable.ValueFrom == nil {
			env[variable.Name] = expansion.Expand(variable.Value, expand)
			continue
		}
		value, found, err := w.envValue(c, variable.ValueFrom)
		if err != nil {
			return nil, err
		}
		if found {
			env[variable.Name] = value
		}
	}
	return env, nil
}

func (w *worker) envFrom(source v1.EnvFromSource) (map[string]string, error) {
	values := map[string]string{}
	switch {
	case source.ConfigMapRef != nil:
		object, err := w.k.objects.configMap(w.pod.Namespace, source.ConfigMapRef.Name)
		if err != nil {
			return nil, unlessOptional(err, source.ConfigMapRef.Optional)
		}
		maps.Copy(values, object.Data)
	case source.SecretRef != nil:
		object, err := w.k.objects.secret(w.pod.Namespace, source.SecretRef.Name)
		if err != nil {
			return nil, unlessOptional(err, source.SecretRef.Optional)
		}
		for name, value := range object.Data {
			values[name] = string(value)
		}
	}
	return values, nil
}

// envValue reads the source of one variable; found is false where an optional
// source is missing.
func (w *worker) envValue(c *v1.Container, source *v1.EnvVarSource) (value string, found bool, err error) {
	switch {
	case source.FieldRef != nil:
		value, err = w.field(source.FieldRef.FieldPath)
		return value, true, err
	case source.ResourceFieldRef != nil:
		return resourceField(w.pod, c, source.ResourceFieldRef), true, nil
	case source.ConfigMapKeyRef != nil:
		ref := source.ConfigMapKeyRef
		object, err := w.k.objects.configMap(w.pod.Namespace, ref.Name)
		if err != nil {
			return "", false, unlessOptional(err, ref.Optional)
		}
		value, found = object.Data[ref.Key]
		if !found && !isTrue(ref.Optional) {
			return "", false, fmt.Errorf("couldn't find key %s in ConfigMap %s/%s", ref.Key, w.pod.Namespace, ref.Name)
		}
		return value, found, nil
	case source.SecretKeyRef != nil:
		ref := source.SecretKeyRef
		object, err := w.k.objects.secret(w.pod.Namespace, ref.Name)
		if err != nil {
			return "", false, unlessOptional(err, ref.Optional)
		}
		data, found := object.Data[ref.Key]
		if !found && !isTrue(ref.Optional) {
			return "", false, fmt.Errorf("couldn't find key %s in Secret %s/%s", ref.Key, w.pod.Namespace, ref.Name)
		}
		return string(data), found, nil
	}
	return "", false, nil
}

// field reads a field of the pod, for variables and downward volumes.
func (w *worker) field(path string) (string, error) {
	switch path {
	case "spec.nodeName":
		return w.pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return w.pod.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return nodeAddress.String(), nil
	case "status.podIP", "status.podIPs":
		return w.address.String(), nil
	}
	return fieldpath.ExtractFieldPathAsString(w.pod, path)
}

// resourceField is a request or limit in units of its divisor, rounded up. What
// is not limited is limited by the node.
func resourceField(pod *v1.Pod, c *v1.Container, ref *v1.ResourceFieldSelector) string {
	if ref.ContainerName != "" {
		for n := range pod.Spec.Containers {
			if pod.Spec.Containers[n].Name == ref.ContainerName {
				c = &pod.Spec.Containers[n]
			}
		}
	}
	var list v1.ResourceList
	var name v1.ResourceName
	switch {
	case len(ref.Resource) > 7 && ref.Resource[:7] == "limits.":
		list, name = c.Resources.Limits, v1.ResourceName(ref.Resource[7:])
	case len(ref.Resource) > 9 && ref.Resource[:9] == "requests.":
		list, name = c.Resources.Requests, v1.ResourceName(ref.Resource[9:])
	}
	quantity, found := list[name]
	if !found {
		quantity = capacity()[name]
	}
	divisor := ref.Divisor.MilliValue()
	if divisor == 0 {
		divisor = 1000
	}
	return fmt.Sprint((quantity.MilliValue() + divisor - 1) / divisor)
}

// command is what the container executes: its own command and args, else those
// of the image, with $(NAME) replaced.
func command(c *v1.Container, from image, env map[string]string) []string {
	words := slices.Concat(c.Command, c.Args)
	switch {
	case len(c.Command) > 0:
	case len(c.Args) > 0:
		words = slices.Concat(from.Entrypoint, c.Args)
	default:
		words = slices.Concat(from.Entrypoint, from.Cmd)
	}
	for n := range words {
		words[n] = expansion.Expand(words[n], expansion.MappingFuncFor(env))
	}
	return words
}

// list is env as NAME=value, in the order of names.
func list(env map[string]string) []string {
	var variables []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		variables = append(variables, name+"="+env[name])
	}
	return variables
}

func isTrue(flag *bool) bool { return flag != nil && *flag }

// unlessOptional forgives that an optional object is missing.
func unlessOptional(err error, optional *bool) error {
	if isTrue(optional) && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
