package main

import (
	"strings"
	"testing"
)

func TestNetworkCommands(t *testing.T) {
	c := newCLI(t)
	has(t, c.ok(t, "network", "list"), "There are no networks.")
	has(t, c.ok(t, "network", "create", "lan", "--bridge", "br0", "--node", "n2=br7", "--vlan", "20"), "network lan is made")
	has(t, c.ok(t, "network", "create", "out", "--user"), "network out is made")
	has(t, c.ok(t, "network", "list"), "NAME", "lan", "br0", "20", "user")
	has(t, c.ok(t, "network", "show", "lan"), "Bridge:", "br0", "NODE", "n2", "br7")
	has(t, c.ok(t, "network", "edit", "lan", "--bridge", "br1", "--vlan", "0"), "br1")
	c.is(t, exitUsage, "nothing to change", "network", "edit", "lan")
	c.is(t, exitUsage, "NODE=BRIDGE", "network", "create", "x", "--bridge", "b", "--node", "n2")
	c.is(t, exitFailed, "there is no node", "network", "create", "x", "--bridge", "b", "--node", "n9=b")
	c.is(t, exitFailed, "needs a bridge", "network", "create", "x")

	c.ok(t, "vm", "create", "web", "--disk", "1G", "--nic", "net=lan,model=rtl8139,mac=02:00:00:00:00:AA,disconnected", "--nic", "net=out")
	has(t, c.ok(t, "vm", "show", "web"), "NIC", "02:00:00:00:00:aa", "lan", "rtl8139", "no", "out", "virtio", "yes")
	c.is(t, exitFailed, "is joined to the network", "network", "delete", "lan")
	has(t, c.ok(t, "vm", "edit", "web", "--set-nic", "mac=02:00:00:00:00:aa,net=out,connected", "--add-nic", "net=out,model=e1000"),
		"02:00:00:00:00:aa", "e1000")
	has(t, c.ok(t, "network", "delete", "lan"), "network lan is deleted")
	c.ok(t, "vm", "edit", "web", "--remove-nic", "02:00:00:00:00:aa")
	c.is(t, exitFailed, "has no network card", "vm", "edit", "web", "--remove-nic", "02:00:00:00:00:aa")
	has(t, c.ok(t, "vm", "edit", "web", "--tag", "shop", "--tag", "web", "--description", "the shop"), "Tags:", "shop, web", "the shop")
	if out := c.ok(t, "vm", "edit", "web", "--tag", ""); strings.Contains(out, "shop, web") {
		t.Errorf("tags that were taken away are still there: %s", out)
	}
	c.is(t, exitFailed, "may hold letters", "vm", "edit", "web", "--tag", "a b")
	for _, bad := range []string{"", "model=e1000", "net=out,net=out", "net=out,disconnected=1", "net", "speed=9,net=out", "net="} {
		if r := c.run(t, "vm", "edit", "web", "--add-nic", bad); r.code != exitUsage {
			t.Errorf("--add-nic %q: exit %d, %s", bad, r.code, r.err)
		}
	}
	for _, bad := range []string{"net=out", "mac=02:00:00:00:00:aa,connected,disconnected"} {
		if r := c.run(t, "vm", "edit", "web", "--set-nic", bad); r.code != exitUsage {
			t.Errorf("--set-nic %q: exit %d, %s", bad, r.code, r.err)
		}
	}
}
