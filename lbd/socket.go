package lbd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ErrNotRunning is returned where no daemon answers on the control socket.
var ErrNotRunning = errors.New("lbd is not running (systemctl start lbd)")

// socketName is the control socket's name in the run directory. It speaks HTTP:
// GET /status returns a Status as JSON.
const socketName = "lbd.sock"

// answerTime is how long the daemon's loop may take to answer.
const answerTime = 5 * time.Second

type socket struct {
	listener net.Listener
	path     string
}

// listen makes the control socket, for root alone. One that an earlier life left
// is replaced; one on which somebody answers is not.
func listen(dir string) (*socket, error) {
	path := filepath.Join(dir, socketName)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("socket: %w", err)
	case fi.Mode().Type() != os.ModeSocket:
		return nil, fmt.Errorf("socket %s: something else is there (remove it, or choose another --run-dir)", path)
	default:
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
			return nil, fmt.Errorf("socket %s: another lbd listens there (stop it, or choose another --run-dir)", path)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("socket: %w", err)
		}
	}
	// It is made where nobody else can look, and moved when its mode is right.
	tmp, err := os.MkdirTemp(dir, ".new-")
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	defer os.RemoveAll(tmp)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(tmp, "s"), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket: %w (a path may have 107 bytes; choose a shorter --run-dir)", err)
	}
	l.SetUnlinkOnClose(false)
	err = errors.Join(os.Chmod(filepath.Join(tmp, "s"), 0o600), os.Rename(filepath.Join(tmp, "s"), path))
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("socket: %w", err)
	}
	return &socket{listener: l, path: path}, nil
}

// Close ends the socket and removes it.
func (s *socket) Close() error {
	err := s.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil // by serve
	}
	return errors.Join(err, os.Remove(s.path))
}

// serve answers until ctx is done.
func (s *socket) serve(ctx context.Context, status func(context.Context) (Status, error)) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), answerTime)
		defer cancel()
		st, err := status(ctx)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		// A client that has gone away is no error of ours.
		_ = json.NewEncoder(w).Encode(st)
	})
	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: answerTime,
		WriteTimeout:      2 * answerTime,
		// Requests end with the daemon.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(s.listener)
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("socket %s: %w", s.path, err)
}

// Query asks the daemon whose control socket is in runDir for its status. It
// returns an error that is ErrNotRunning where nobody answers.
func Query(ctx context.Context, runDir string) (Status, error) {
	path := filepath.Join(runDir, socketName)
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 2*answerTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lbd/status", nil)
	if err != nil {
		return Status{}, err
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return Status{}, fmt.Errorf("%s: %w", path, ErrNotRunning)
	}
	if err != nil {
		return Status{}, fmt.Errorf("socket %s: %w", path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return Status{}, fmt.Errorf("socket %s: %s: %s", path, resp.Status, strings.TrimSpace(string(text)))
	}
	var st Status
	if err := json.NewDecoder(resp.Body).Decode(&st); err != nil {
		return Status{}, fmt.Errorf("socket %s: %w", path, err)
	}
	return st, nil
}
