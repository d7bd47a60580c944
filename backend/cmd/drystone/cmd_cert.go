package main

import (
	"io"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/node"
	"drystone.example/drystone/backend/pki"
)

// newCert is what a person compares before trusting a cluster from afar.
func newCert(a *app) *cobra.Command {
	dir := node.DefaultDir
	show := &cobra.Command{
		Use:   "show",
		Short: "Show the cluster's fingerprint, and the join string for the desktop app",
		Long: "Shows, on one of its nodes, the fingerprint of the cluster's certificate authority. The desktop app shows the same\n" +
			"when a cluster is added by address; with the join string it need not ask.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.target.dir != "" {
				c, err := a.target.cluster()
				if err != nil {
					return err
				}
				if len(c.Nodes) == 0 {
					return model.Errorf(model.NotFound, "the development cluster has no node yet")
				}
				dir = node.Dir(c.Nodes[0].Dir)
			}
			return a.showCert(dir)
		},
	}
	show.Flags().StringVar((*string)(&dir), "node-dir", string(dir), "folder of everything the node keeps")
	return group("cert", "The cluster's certificate authority", show)
}

// A certResult is what cert show prints.
type certResult struct {
	Fingerprint string `json:"fingerprint"`
	CA          string `json:"ca"` // path
	JoinString  string `json:"join_string"`
}

func (a *app) showCert(dir node.Dir) error {
	cfg, err := node.ReadConfig(dir)
	if err != nil {
		return err
	}
	keeper, err := pki.OpenKeeper(dir.PKI())
	if err != nil {
		return err
	}
	pins := keeper.Pins()
	pin := pins[len(pins)-1] // while the root is replaced, the one that every node shows
	join := pki.JoinString{Address: cfg.Endpoint(), CA: pin}
	return show(a, certResult{pin.String(), keeper.RootsFile(), join.String()}, func(w io.Writer, r certResult) {
		fields(w, "Fingerprint", r.Fingerprint, "Certificate", r.CA, "Join string", r.JoinString)
	})
}
