package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/model"
)

// The exit statuses, complete.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnavailable = 3
)

// An app is one call of the program.
type app struct {
	in       io.Reader
	out, err io.Writer
	target   target
	json     bool
	started  bool // arguments were understood and the command began
}

// errUsage marks an error as a mistake in how the program was called.
var errUsage = errors.New("usage")

func usagef(format string, args ...any) error {
	return fmt.Errorf("%w%w", errUsage, model.Errorf(model.Invalid, format, args...))
}

// run is main without the process.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	a := &app{in: in, out: out, err: errOut}
	root := newRoot(a) //nolint:contextcheck // each command has the context it is executed with
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	code := exitOf(a.started, err)
	text := sentence(err)
	if code == exitUsage {
		text += "; see " + root.Name() + " --help"
	}
	say(errOut, "drystone: %s\n", text)
	return code
}

// exitOf is the exit status of an error.
func exitOf(started bool, err error) int {
	switch {
	case !started || errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, context.Canceled):
		return exitFailed
	case errors.Is(err, context.DeadlineExceeded), model.CodeOf(err) == model.Unavailable:
		return exitUnavailable
	}
	return exitFailed
}

// sentence is what a person reads of an error.
func sentence(err error) string {
	if errors.Is(err, context.Canceled) {
		return "cancelled"
	}
	if e, ok := errors.AsType[*model.Error](err); ok {
		return e.Text
	}
	return err.Error()
}

// newRoot is the whole command line. Each group of commands has a file and a
// function here.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "drystone",
		Short: "Drystone: virtual machines on storage without mortar",
		Long: "drystone talks to a node's own socket as root, to the development cluster of --dir or DRYSTONE_DIR,\n" +
			"or from afar to --server with --ca and --token-file.",
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			a.started = true
			return a.target.check()
		},
	}
	flags := root.PersistentFlags()
	flags.BoolVar(&a.json, "json", false, "print the API's object as JSON")
	a.target.flags(flags, os.Getenv("DRYSTONE_DIR"))
	root.AddGroup(
		&cobra.Group{ID: "see", Title: "Cluster:"},
		&cobra.Group{ID: "storage", Title: "Storage:"},
		&cobra.Group{ID: "machines", Title: "Machines:"},
		&cobra.Group{ID: "setup", Title: "Setting up:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("see", newStatus(a), newNode(a), newCluster(a), newCA(a))
	add("storage", newPool(a), newDisk(a), newVolume(a), newSnapshot(a))
	add("machines", newImage(a), newVM(a), newNetwork(a))
	add("setup", newInit(a), newJoin(a), newToken(a), newCert(a), newLogin(a), newDev(a), newVersion(a))
	return root
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return usagef("%s needs to be told what to do", c.CommandPath())
		},
	}
	c.AddCommand(commands...)
	return c
}
