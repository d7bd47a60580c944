package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/guard"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/node"
)

// newRoot is main without the process: tests call it with their own arguments.
func newRoot() *cobra.Command {
	dir := node.DefaultDir
	root := &cobra.Command{
		Use:           "drystoned",
		Short:         "The node daemon of Drystone",
		Version:       model.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar((*string)(&dir), "dir", string(dir), "folder of everything the node keeps")
	root.AddCommand(&cobra.Command{
		Use:   "run",
		Short: "Run the node that drystone init or drystone join set up",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return node.Run(cmd.Context(), dir, log)
		},
	})
	var pids string
	guarding := &cobra.Command{
		Use:   "guard",
		Short: "Kill the node's guests when its lease has run out",
		Long: "The guard holds the node's guests and kills them when the node's lease has run out without being renewed,\n" +
			"so that a dead or stopped daemon cannot leave a guest running that is started elsewhere. drystoned run starts it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return guard.Run(cmd.Context(), guard.Config{Socket: dir.Guard(), PIDs: pids, Log: log})
		},
	}
	guarding.Flags().StringVar(&pids, "pids", "/run/libvirt/qemu", "libvirt's folder of pid files")
	root.AddCommand(guarding)
	for _, c := range root.Commands() {
		c.SilenceUsage = true
	}
	return root
}
