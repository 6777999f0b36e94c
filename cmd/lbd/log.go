package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
)

// newLog returns the log on stderr.
func newLog(e env, level slog.Level) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if !e.journal {
		return slog.New(slog.NewTextHandler(e.stderr, o))
	}
	// The journal has the time, and the level as a priority.
	o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}
	return slog.New(&journal{Handler: slog.NewTextHandler(e.stderr, o), w: e.stderr, mu: new(sync.Mutex)})
}

// journal puts the priority before each line, as sd-daemon(3) has it, so that
// `journalctl -p warning` finds what is one.
type journal struct {
	slog.Handler
	w  io.Writer
	mu *sync.Mutex // joins the priority and the line
}

// Handle writes one line.
func (j *journal) Handle(ctx context.Context, r slog.Record) error {
	priority := 7 // LOG_DEBUG
	switch {
	case r.Level >= slog.LevelError:
		priority = 3
	case r.Level >= slog.LevelWarn:
		priority = 4
	case r.Level >= slog.LevelInfo:
		priority = 6
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := fmt.Fprintf(j.w, "<%d>", priority); err != nil {
		return err
	}
	return j.Handler.Handle(ctx, r)
}

// WithAttrs returns a handler that adds the attributes.
func (j *journal) WithAttrs(as []slog.Attr) slog.Handler {
	return &journal{Handler: j.Handler.WithAttrs(as), w: j.w, mu: j.mu}
}

// WithGroup returns a handler that puts what follows into the group.
func (j *journal) WithGroup(name string) slog.Handler {
	return &journal{Handler: j.Handler.WithGroup(name), w: j.w, mu: j.mu}
}
