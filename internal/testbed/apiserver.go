package testbed

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
)

// APIServer is a real kube-apiserver in a process of its own, with the service
// networks 10.43.0.0/16 and fd43::/112.
type APIServer struct {
	// Kubeconfig is the administrator's, ProxyKubeconfig that of
	// system:kube-proxy, which is lbd's identity.
	Kubeconfig, ProxyKubeconfig string

	t    testing.TB
	dir  string
	port int
	cmd  *exec.Cmd
}

// NewAPIServer starts bin/apiserver, which `make bin/apiserver` builds from the
// module in test/, and returns when it is ready.
func NewAPIServer(t testing.TB) *APIServer {
	t.Helper()
	dir := t.TempDir()
	s := &APIServer{t: t, dir: dir, port: freePort(t), Kubeconfig: filepath.Join(dir, "kubeconfig")}
	s.ProxyKubeconfig = s.Kubeconfig + ".proxy"
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// Start starts it again after Stop, on the same port and with all its objects.
func (s *APIServer) Start() {
	s.t.Helper()
	_, file, _, _ := runtime.Caller(0)
	exe := filepath.Join(filepath.Dir(file), "../../bin/apiserver")
	s.cmd = exec.Command(exe, "--dir", s.dir, "--port", strconv.Itoa(s.port), "--kubeconfig", s.Kubeconfig)
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd.Stderr = log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("%v (make bin/apiserver)", err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		b, _ := os.ReadFile(log.Name())
		s.t.Fatalf("apiserver: %q, %v\n%s", line, err, b[max(0, len(b)-2000):])
	}
}

// Stop ends the process at once.
func (s *APIServer) Stop() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGKILL)
	s.cmd.Wait()
	s.cmd = nil
}

// freePort returns a port of the loopback address that nobody uses now.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
