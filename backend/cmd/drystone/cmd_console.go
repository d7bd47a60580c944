package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
)

// escape ends a console, as it does in telnet: Ctrl-].
const escape = 0x1d

func newVMConsole(a *app) *cobra.Command {
	var serial, watch, take bool
	c := &cobra.Command{
		Use: "console VM --serial", Short: "Use a machine's serial port; Ctrl-] leaves", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec := schema.ConsoleSpec{Kind: "serial"}
			switch {
			case !serial:
				return usagef("only --serial is a console here; the web page has the screen")
			case watch && take:
				return usagef("--watch and --take exclude each other")
			case watch:
				spec.Mode = "watch"
			case take:
				spec.Mode = "take"
			}
			return a.with(cmd, func(c *client.Client) error { return a.console(cmd.Context(), c, args[0], spec) })
		},
	}
	c.Flags().BoolVar(&serial, "serial", false, "the serial port")
	c.Flags().BoolVar(&watch, "watch", false, "only watch")
	c.Flags().BoolVar(&take, "take", false, "type, though somebody else does, whose console is closed")
	return c
}

// newVMScreen takes a screenshot.
func newVMScreen(a *app) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "screen VM -o FILE", Short: "Take a screenshot of a machine, as a PNG file", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" {
				return usagef("-o FILE says where the screenshot goes; - is the standard output")
			}
			return a.with(cmd, func(c *client.Client) error {
				p, err := c.Screen(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if file == "-" {
					_, err := a.out.Write(p)
					return err //nolint:wrapcheck // of the standard output
				}
				if err := os.WriteFile(file, p, 0o600); err != nil {
					return fmt.Errorf("write the screenshot: %w", err)
				}
				return show(a, screenshot{file, len(p)}, func(w io.Writer, s screenshot) {
					say(w, "wrote %s, of %s\n", s.File, size(model.Bytes(s.Size)))
				})
			})
		},
	}
	c.Flags().StringVarP(&file, "output", "o", "", "the file to write; - is the standard output")
	return c
}

// A screenshot says what was written.
type screenshot struct {
	File string `json:"file"`
	Size int    `json:"size_bytes"`
}

// A port is a console that may be opened anew while somebody types.
type port struct {
	mu  sync.Mutex
	now *client.Console
}

func (p *port) set(c *client.Console) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = c
}

func (p *port) get() *client.Console {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// Write types. What is typed while nothing is open is lost; who reads says why.
func (p *port) Write(b []byte) (int, error) {
	_, _ = p.get().Write(b)
	return len(b), nil
}

// console joins the terminal and a serial port until either ends for good: a machine
// that has moved to another node is followed.
func (a *app) console(ctx context.Context, c *client.Client, ref string, spec schema.ConsoleSpec) error {
	first, err := a.openConsole(ctx, c, ref, spec)
	if err != nil {
		return err
	}
	var p port
	p.set(first)
	stop := context.AfterFunc(ctx, func() { p.get().Close() }) //nolint:errcheck // to wake the readers
	defer stop()
	restore, err := rawTerminal(a.in)
	if err != nil {
		return errors.Join(err, first.Close())
	}
	defer restore()
	if isTerminal(a.in) {
		say(a.err, "connected; Ctrl-] leaves\r\n")
	}
	// The reader of the keyboard cannot be woken, so it is not waited for: the
	// process ends after this.
	left := make(chan error, 1)
	go func() { left <- typeInto(&p, a.in) }()
	for {
		over, err := a.attend(p.get(), left)
		if over || err != nil || ctx.Err() != nil {
			return notBecause(ctx, err)
		}
		next, err := a.again(ctx, c, ref, spec)
		if next == nil || err != nil {
			return notBecause(ctx, err)
		}
		p.set(next)
	}
}

func notBecause(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// openConsole opens a console that tells who else is there.
func (a *app) openConsole(ctx context.Context, c *client.Client, ref string, spec schema.ConsoleSpec) (*client.Console, error) {
	con, err := c.Console(ctx, ref, spec)
	if err != nil {
		return nil, err
	}
	last := ""
	con.Notice = func(n schema.ConsoleNotice) {
		text := ""
		switch {
		case !n.Writes && n.Writer != "":
			text = "you only watch: " + n.Writer + " types"
		case !n.Writes:
			text = "you only watch; --take lets you type"
		case len(n.Watchers) > 0:
			text = "watched by " + strings.Join(n.Watchers, ", ")
		}
		if text != "" && text != last {
			say(a.err, "\r\n[%s]\r\n", text)
		}
		last = text
	}
	return con, nil
}

// attend copies what a machine writes until it ends, or the person leaves: then it is
// over.
func (a *app) attend(con *client.Console, left <-chan error) (over bool, err error) {
	came := make(chan error, 1)
	go func() { // ends when con does
		_, err := io.Copy(a.out, con)
		came <- err
	}()
	select {
	case err = <-came:
	case err = <-left:
		if errors.Is(err, io.EOF) { // the input has ended, not the machine
			err = <-came
			break
		}
		over = true
		if con.Leave() == nil { // else the connection is gone, and what is read ends by itself
			<-came //nolint:errcheck // it ended because it was told to
		}
	}
	if late := con.Close(); err == nil && !errors.Is(late, net.ErrClosed) { // who was told to end closed it
		err = late
	}
	return over, err
}

// How long a console that its machine ended is tried to be opened anew.
const (
	againFor   = 30 * time.Second
	againEvery = 500 * time.Millisecond
)

// again opens the console of a machine that still runs, perhaps at another node, and
// returns nil for one that does not.
func (a *app) again(ctx context.Context, c *client.Client, ref string, spec schema.ConsoleSpec) (*client.Console, error) {
	ctx, cancel := context.WithTimeout(ctx, againFor)
	defer cancel()
	for {
		vm, err := c.VM(ctx, ref)
		if err != nil || vm.Status.State != model.VMRunning {
			return nil, err
		}
		con, err := a.openConsole(ctx, c, ref, spec)
		if err == nil {
			say(a.err, "\r\n[connected again]\r\n")
			return con, nil
		}
		pause := time.NewTimer(againEvery)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, err
		}
	}
}

// typeInto sends what is typed. It returns nil after the escape and io.EOF at the
// end of the input.
func typeInto(port io.Writer, in io.Reader) error {
	buf := make([]byte, 1024)
	for {
		n, err := in.Read(buf)
		p := buf[:n]
		i := strings.IndexByte(string(p), escape)
		if i >= 0 {
			p = p[:i]
		}
		if len(p) > 0 {
			if _, err := port.Write(p); err != nil {
				return err //nolint:wrapcheck // it has its sentence
			}
		}
		switch {
		case i >= 0:
			return nil
		case err != nil:
			return err //nolint:wrapcheck // io.EOF is told apart
		}
	}
}
