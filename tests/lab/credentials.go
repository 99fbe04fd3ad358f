package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// serverAddress is the API server's: the address of the Service `kubernetes`,
// which is local to the lab's network, and reachable from every pod.
const serverAddress = "10.96.0.1"

// person is somebody whom the API server knows by a token.
type person struct {
	name   string
	groups []string
	file   string // kubeconfig, below the lab's folder
}

// people are all who have a token. What alice, bob and viewer may do is for
// each test to say, with role bindings.
var people = []person{
	{"admin", []string{"system:masters"}, "admin.kubeconfig"},
	{"system:kube-controller-manager", nil, "parts/controller-manager.kubeconfig"},
	{"system:kube-scheduler", nil, "parts/scheduler.kubeconfig"},
	{"system:node:" + nodeName, []string{"system:nodes", "system:masters"}, "parts/kubelet.kubeconfig"},
	{"lab:gateway", []string{"system:masters"}, "parts/contour.kubeconfig"},
	{"alice", []string{"lab:people"}, "users/alice.kubeconfig"},
	{"bob", []string{"lab:people"}, "users/bob.kubeconfig"},
	{"viewer", []string{"lab:people"}, "users/viewer.kubeconfig"},
}

// writeCredentials makes all keys, certificates, tokens and kubeconfigs of a
// new lab. A folder that has them keeps them.
func writeCredentials(dir string) error {
	certs := filepath.Join(dir, "certs")
	if _, err := os.Stat(filepath.Join(dir, "admin.kubeconfig")); err == nil {
		return nil
	}
	for _, folder := range []string{certs, filepath.Join(dir, "parts"), filepath.Join(dir, "users")} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	authority, err := newAuthority(filepath.Join(certs, "ca"))
	if err != nil {
		return err
	}
	if err := authority.issue(filepath.Join(certs, "apiserver"), "kube-apiserver",
		[]string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		[]string{"127.0.0.1", serverAddress, "10.244.0.1"}); err != nil {
		return err
	}
	if err := authority.issue(filepath.Join(certs, "kubelet"), "system:node:"+nodeName, []string{nodeName}, []string{"10.244.0.1"}); err != nil {
		return err
	}
	if _, err := newKey(filepath.Join(certs, "accounts.key")); err != nil {
		return err
	}
	var tokens strings.Builder
	for n, one := range people {
		token := rand.Text()
		fmt.Fprintf(&tokens, "%s,%s,lab-%d,%q\n", token, one.name, n, strings.Join(one.groups, ","))
		if err := writeKubeconfig(filepath.Join(dir, one.file), one.name, token, authority.pem); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "tokens.csv"), []byte(tokens.String()), 0o600)
}

func writeKubeconfig(path, name, token string, authority []byte) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["lab"] = &clientcmdapi.Cluster{Server: "https://" + serverAddress + ":443", CertificateAuthorityData: authority}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts["lab"] = &clientcmdapi.Context{Cluster: "lab", AuthInfo: name, Namespace: "default"}
	config.CurrentContext = "lab"
	return clientcmd.WriteToFile(*config, path)
}

// authority signs the certificates of one lab. They are valid for ten years:
// tests may move the clock.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(path string) (*authority, error) {
	key, err := newKey(path + ".key")
	if err != nil {
		return nil, err
	}
	template := newTemplate("lab")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return &authority{certificate, key, block}, os.WriteFile(path+".crt", block, 0o644)
}

// issue writes path.crt and path.key for a server with these names and addresses.
func (a *authority) issue(path, name string, names, addresses []string) error {
	key, err := newKey(path + ".key")
	if err != nil {
		return err
	}
	template := newTemplate(name)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.DNSNames = names
	for _, address := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(address))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return err
	}
	return os.WriteFile(path+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

func newTemplate(name string) *x509.Certificate {
	serial := make([]byte, 16)
	_, _ = rand.Read(serial)
	number, _ := new(big.Int).SetString(hex.EncodeToString(serial), 16)
	return &x509.Certificate{
		SerialNumber: number, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(3650 * 24 * time.Hour),
	}
}

// newKey writes a new private key to path.
func newKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}
