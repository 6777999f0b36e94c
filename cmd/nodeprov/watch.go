package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fsnotify/fsnotify"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/nodeprov/nodeprov/internal/cli"
	"github.com/nodeprov/nodeprov/provision"
	"github.com/nodeprov/nodeprov/provision/host"
	"github.com/nodeprov/nodeprov/provision/profile"
)

func (a *app) watchCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "watch",
		Short: "Keep network devices as the applied profile has them",
		Long: `What nodeprov-watch.service runs. It waits for the kernel to tell of a device that
was plugged in, reset, or changed by something else, and sets what is not as the
applied profile has it: within a second, and a few times only, so that it never
fights for long. Other values that differ are reported in its log and left alone. It
holds the PM-QoS request of cpu { force_latency }.

It does nothing until something was applied in this boot, nor after a rollback.`,
		Example: `  systemctl status nodeprov-watch   # what it has mended, and what it left alone
  nodeprov watch                    # by hand, until it is interrupted`,
		Args: cli.NoArgs,
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		e, err := a.live("watch")
		if err != nil {
			return err
		}
		return a.watch(c.Context(), e)
	}
	return c
}

func (a *app) watch(ctx context.Context, e *provision.Engine) error {
	supervisor, err := host.NewSupervisor(a.environ)
	if err != nil {
		return err
	}
	// systemd names the directory that it made for the unit.
	dir := provision.RunDir
	for _, kv := range a.environ {
		if d, ok := strings.CutPrefix(kv, "RUNTIME_DIRECTORY="); ok && d != "" {
			dir = d
		}
	}
	files, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch: inotify: %w", err)
	}
	defer files.Close()
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{{dir, 0o755}, {a.stateDir, 0o700}} {
		if err := errors.Join(os.MkdirAll(d.path, d.mode), files.Add(d.path)); err != nil {
			return fmt.Errorf("watch: %w (run as root)", err)
		}
	}
	// Before the first look, so that nothing is missed in between.
	monitor, err := e.Host.MonitorLinks()
	if err != nil {
		return err
	}
	links, changed := make(chan string), make(chan string)
	w := &provision.Watcher{
		Engine: e, Links: links, Files: changed, Dir: dir, Supervisor: supervisor, Log: a.daemonLog(),
		Wanted: func(ctx context.Context, r *provision.Report, devices []string) (map[string][]provision.Wanted, profile.Source, error) {
			sets, err := a.settingsInForce(ctx, e, r, devices)
			if err != nil {
				return nil, profile.Source{}, err
			}
			return sets.of, sets.src, nil
		},
		Hold: e.Host.HoldLatency, Adjust: host.SetLatency,
		Index: func(device string) (int, error) {
			l, err := e.Host.Link(device)
			return l.Index, err
		},
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return monitor.Run(ctx, func(device string) { send(ctx, links, device) }) })
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case ev := <-files.Events:
				send(ctx, changed, filepath.Base(ev.Name))
			case err := <-files.Errors:
				return fmt.Errorf("watch: inotify: %w", err)
			}
		}
	})
	err = w.Run(ctx)
	if err == nil {
		err = context.Canceled // ends the others
	}
	g.Go(func() error { return err })
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func send(ctx context.Context, to chan<- string, what string) {
	select {
	case to <- what:
	case <-ctx.Done():
	}
}

// daemonLog is the log on stderr. The journal has the time itself, and takes the
// priority from the start of a line (sd-daemon(3)).
func (a *app) daemonLog() *slog.Logger {
	journal := slices.ContainsFunc(a.environ, func(kv string) bool { return strings.HasPrefix(kv, "JOURNAL_STREAM=") })
	o := &slog.HandlerOptions{}
	if journal {
		o.ReplaceAttr = func(groups []string, at slog.Attr) slog.Attr {
			if len(groups) == 0 && (at.Key == slog.TimeKey || at.Key == slog.LevelKey) {
				return slog.Attr{}
			}
			return at
		}
	}
	h := slog.Handler(slog.NewTextHandler(a.stderr, o))
	if journal {
		h = &journalHandler{h, a.stderr}
	}
	return slog.New(h)
}

// journalHandler puts the priority before each line. The handler writes a line
// at once, and the watch logs from one goroutine.
type journalHandler struct {
	slog.Handler
	w io.Writer
}

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	priority := "<6>" // LOG_INFO
	switch {
	case r.Level >= slog.LevelError:
		priority = "<3>"
	case r.Level >= slog.LevelWarn:
		priority = "<4>"
	}
	if _, err := io.WriteString(h.w, priority); err != nil {
		return err
	}
	return h.Handler.Handle(ctx, r)
}
