package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net"

	"drystone.example/drystone/backend/console"
	"drystone.example/drystone/backend/model"
)

// Consoles are at the node that runs the machine, where their tickets are too. Who may
// have one was decided where the request came in.
const (
	callTicket   = "console.ticket"
	consoleProto = "console"
	pictureProto = "picture"
)

// ConsoleTicket gets a ticket to a console of a running machine.
func (a *Agent) ConsoleTicket(ctx context.Context, vm model.VM, ask console.Ask) (console.Ticket, error) {
	var t console.Ticket
	if err := runs(vm); err != nil {
		return t, err
	}
	err := a.cfg.Wire.Call(ctx, vm.Node, callTicket, ask, &t)
	return t, err
}

func runs(vm model.VM) error {
	if vm.Node == 0 || vm.Status.State != model.VMRunning {
		return model.Errorf(model.Conflict, "vm %s is not running", vm.Name)
	}
	return nil
}

func (a *Agent) handleTicket(_ context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
	var ask console.Ask
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	if a.consoles == nil {
		return nil, model.Errorf(model.Unavailable, "this node runs no guests")
	}
	return a.consoles.Issue(ask)
}

// OpenConsole opens a console of a running machine, wherever it runs.
func (a *Agent) OpenConsole(ctx context.Context, vm model.VM, h console.Hello) (*console.Line, error) {
	if err := runs(vm); err != nil {
		return nil, err
	}
	conn, err := a.cfg.Wire.Dial(ctx, vm.Node, consoleProto)
	if err != nil {
		return nil, fmt.Errorf("open console: %w", err)
	}
	return console.Open(ctx, conn, h)
}

func (a *Agent) serveConsole(ctx context.Context, _ model.NodeID, conn net.Conn) {
	if a.consoles != nil {
		a.consoles.Serve(ctx, conn)
	}
}

// Picture takes a screenshot of a running machine, wherever it runs, as a PNG file.
func (a *Agent) Picture(ctx context.Context, vm model.VM) ([]byte, error) {
	if err := runs(vm); err != nil {
		return nil, err
	}
	conn, err := a.cfg.Wire.Dial(ctx, vm.Node, pictureProto)
	if err != nil {
		return nil, fmt.Errorf("fetch screenshot: %w", err)
	}
	defer func() { _ = conn.Close() }()
	return console.Fetch(ctx, conn, vm.ID)
}

func (a *Agent) servePicture(ctx context.Context, _ model.NodeID, conn net.Conn) {
	if a.consoles != nil {
		a.consoles.ServePicture(ctx, conn)
	}
}
