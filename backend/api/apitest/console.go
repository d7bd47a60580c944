package apitest

import (
	"context"
	"net"

	"drystone.example/drystone/backend/console"
	"drystone.example/drystone/backend/model"
)

// The consoles are those of a node, of machines that are in this test.

func (s *Service) ConsoleTicket(_ context.Context, ask console.Ask) (console.Ticket, error) {
	return s.desk.Issue(ask)
}

func (s *Service) OpenConsole(ctx context.Context, h console.Hello) (*console.Line, error) {
	near, far := net.Pipe()
	go func() { // ends with the line
		defer far.Close()
		s.desk.Serve(context.WithoutCancel(ctx), far)
	}()
	return console.Open(ctx, near, h)
}

func (s *Service) Picture(context.Context, model.VMID) ([]byte, error) {
	return []byte("\x89PNG"), s.failure()
}

// machines are what the desk connects to.
type machines chan net.Conn

func (m machines) DialSerial(context.Context, model.VMID) (net.Conn, error) {
	ours, guest := net.Pipe()
	m <- guest
	return ours, nil
}

func (m machines) DialDisplay(ctx context.Context, vm model.VMID) (net.Conn, error) {
	return m.DialSerial(ctx, vm)
}

func (m machines) SerialLog(model.VMID, int) ([]byte, error) { return nil, nil }

// Guest waits for the next console and returns the guest's end of it.
func (s *Service) Guest() net.Conn { return <-s.guests }
