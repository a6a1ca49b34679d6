package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/quartet-kv/quartet/deploy/allinone"
	"github.com/quartet-kv/quartet/deploy/etcdflags"
	"github.com/quartet-kv/quartet/services/daemon"
)

// memberCommand is one member in etcd's place.
func memberCommand() *cobra.Command {
	var flags *etcdflags.Flags
	engine := "badger"
	cmd := &cobra.Command{
		Use:   "member",
		Short: "Run one member in one process, with etcd's own flags",
		Long: `Runs one member (its four daemons in one process) with the flags of etcd and their
ETCD_* environment variables. Flags of etcd that mean nothing here are accepted and
named in the log; flags that would promise what is not there yet are refused.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if print, err := cmd.Flags().GetBool("version"); err == nil && print {
				fmt.Fprint(cmd.OutOrStdout(), versionText())
				return nil
			}
			c, err := flags.Config(os.Environ())
			if err != nil {
				return err
			}
			log := daemon.NewLog(c.LogLevel)
			for _, f := range c.WithoutEffect {
				log.Warn("flag has no effect", "flag", f)
			}
			run, err := allinone.NewMember(c, engine, log)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			g, ctx := errgroup.WithContext(ctx)
			g.Go(func() error { return run(ctx) })
			g.Go(func() error {
				// A member alone waits for the others as long as it takes.
				if err := announce(ctx, cmd.OutOrStdout(), c.ListenClient); err != nil && ctx.Err() == nil {
					return err
				}
				return nil
			})
			return g.Wait()
		},
	}
	flags = etcdflags.Register(cmd.Flags())
	cmd.Flags().StringVar(&engine, "engine", engine, "storage engine: badger or memory (Quartet's own flag)")
	return cmd
}
