package agent

import (
	"context"
	"fmt"
	"os/user"
	"strconv"
	"time"

	"drystone.example/drystone/backend/guard"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/unixsock"
	"drystone.example/drystone/backend/virt"
)

// renewEvery is how often the guard is told of the lease. The lease is renewed
// every two seconds and lasts six.
const renewEvery = time.Second

// renewing tells the guard until when the node's lease is good, until ctx ends.
// What stops this loop, be it a crash or a pause, lets the guard kill the guests.
func (g *guests) renewing(ctx context.Context) {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	var told guard.Boottime
	failed := false
	for {
		deadline := guard.Boottime(g.agent.cfg.Meta.Lease().Deadline().Nanoseconds())
		if deadline > told {
			err := g.guard.Renew(ctx, deadline)
			switch {
			case err == nil:
				told, failed = deadline, false
			case !failed && ctx.Err() == nil:
				g.agent.log.Error("guard does not answer; guests will be killed when it has run out of patience", "err", err)
				failed = true
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// qemuOwner is whom the sockets of guests' disks belong to.
func qemuOwner() (unixsock.Owner, error) {
	u, err := user.Lookup(virt.User)
	if err != nil {
		return unixsock.Owner{}, model.Errorf(model.Unavailable, "there is no user %s on this node; is libvirt installed?", virt.User)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return unixsock.Owner{}, fmt.Errorf("read uid of %s: %w", virt.User, err)
	}
	return unixsock.Owner{UID: uid, Mode: 0o600}, nil
}
