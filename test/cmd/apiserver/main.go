// apiserver: etcd + kube-apiserver (+ EndpointSlice controller) in one process.
package main

import (
	"context"
	"flag"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/nodeprov/nodeprov/test/controlplane"
)

func main() {
	bind := flag.String("bind", "127.0.0.1", "")
	adv := flag.String("advertise", "", "")
	port := flag.Int("port", 6443, "")
	kc := flag.String("kubeconfig", "kubeconfig", "")
	dir := flag.String("dir", "", "")
	eps := flag.Bool("endpointslice", true, "")
	authz := flag.String("authz", "RBAC", "")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := controlplane.Start(ctx, controlplane.Options{Dir: *dir, Bind: net.ParseIP(*bind), Advertise: net.ParseIP(*adv), Port: *port, Kubeconfig: *kc, AuthorizationMode: *authz, ExtraFlags: flag.Args()})
	if err != nil {
		slog.Error("start", "err", err)
		os.Exit(1)
	}
	if *eps {
		go controlplane.RunEndpointSlice(ctx, s.Config)
	}
	<-ctx.Done()
	if err := s.Stop(); err != nil {
		slog.Error("stop", "err", err)
	}
}
