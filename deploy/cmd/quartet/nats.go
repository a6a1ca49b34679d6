package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/quartet-kv/quartet/services/bus/natsserver"
	"github.com/quartet-kv/quartet/services/daemon"
)

// natsCommand is a NATS server for a split cluster on one machine.
func natsCommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "nats",
		Short: "Run a NATS server for the bus of a cluster on this machine",
		Long: `Runs an embedded NATS server with nothing on disk, as "up --split" does. A
cluster across machines runs a NATS server of its own.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			host, port, err := net.SplitHostPort(listen)
			if err != nil {
				return fmt.Errorf("--listen=%s: %w; use host:port", listen, err)
			}
			n, err := strconv.Atoi(port)
			if err != nil || n < 0 || n > 65535 {
				return fmt.Errorf("--listen=%s: %q is not a port", listen, port)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			log := daemon.NewLog("info").With("daemon", "nats")
			server, err := natsserver.Start(natsserver.Config{Host: host, Port: n, PayloadBytesMax: natsPayloadMax, Log: log})
			if err != nil {
				return err
			}
			log.Info("serving", "addr", server.URL())
			if err := server.Run(ctx); !errors.Is(err, ctx.Err()) {
				return err
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:4222", "address to listen on")
	return cmd
}

// natsPayloadMax lets a batch with the largest request through whole.
const natsPayloadMax = 4 << 20
