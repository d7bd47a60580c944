package api

import (
	"cmp"
	"context"
	"slices"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

func (p *picture) network(n model.Network) schema.Network {
	o := schema.Network{
		ID: n.ID, Name: n.Name, Kind: n.Type, Bridge: n.Bridge, VLAN: n.VLAN, Created: n.Created,
		Nodes: make([]schema.NodeBridge, len(n.Nodes)),
	}
	for i, b := range n.Nodes {
		o.Nodes[i] = schema.NodeBridge{Node: b.Node, NodeName: p.nodeName(b.Node), Bridge: b.Bridge}
	}
	for _, vm := range p.VMs() {
		for _, nic := range vm.NICs {
			if nic.Network == n.ID {
				o.Cards++
			}
		}
	}
	return o
}

func (p *picture) nics(vm model.VM) []schema.NIC {
	list := make([]schema.NIC, len(vm.NICs))
	for i, n := range vm.NICs {
		list[i] = schema.NIC{MAC: n.MAC, Model: n.Model, Network: n.Network, Connected: !n.Disconnected}
		if network, err := p.Network(n.Network); err == nil {
			list[i].NetworkName = network.Name
		}
	}
	return list
}

func (s *Server) listNetworks(ctx context.Context, _ *none) (*out[schema.List[schema.Network]], error) {
	p, err := s.picture(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]schema.Network, 0, len(p.Networks()))
	for _, n := range p.Networks() {
		list = append(list, p.network(n))
	}
	return answer(schema.ListOf(list), nil)
}

func (s *Server) getNetwork(ctx context.Context, in *byRef) (*out[schema.Network], error) {
	p, err := s.picture(ctx)
	if err != nil {
		return nil, err
	}
	n, err := p.FindNetwork(in.Ref)
	if err != nil {
		return nil, err
	}
	return answer(p.network(n), nil)
}

// networkOf answers with a network after a change that returned its record.
func (s *Server) networkOf(ctx context.Context, o any, err error) (*out[schema.Network], error) {
	if err != nil {
		return nil, err
	}
	n, _ := o.(model.Network)
	return answer(s.pictureOf(ctx, s.Record.Local()).network(n), nil)
}

type networkInput struct {
	Body schema.NetworkSpec
}

func (s *Server) createNetwork(ctx context.Context, in *networkInput) (*out[schema.Network], error) {
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, err
	}
	b := in.Body
	nodes, err := bridgesOf(view, b.Nodes)
	if err != nil {
		return nil, err
	}
	o, err := s.Record.Apply(ctx, by(ctx), command.NetworkCreate{Network: model.Network{
		ID: model.NewID[model.NetworkID](), Name: b.Name, Type: cmp.Or(b.Kind, model.NetworkBridge),
		Bridge: b.Bridge, Nodes: nodes, VLAN: b.VLAN,
	}})
	return s.networkOf(ctx, o, err)
}

func bridgesOf(view *state.View, in []schema.BridgeFor) ([]model.NodeBridge, error) {
	list := make([]model.NodeBridge, len(in))
	for i, b := range in {
		n, err := view.FindNode(b.Node)
		if err != nil {
			return nil, err
		}
		list[i] = model.NodeBridge{Node: n.ID, Bridge: b.Bridge}
	}
	return list, nil
}

type networkChangeInput struct {
	Ref  string `path:"ref" minLength:"1" maxLength:"63"`
	Body schema.NetworkChange
}

func (s *Server) changeNetwork(ctx context.Context, in *networkChangeInput) (*out[schema.Network], error) {
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, err
	}
	n, err := view.FindNetwork(in.Ref)
	if err != nil {
		return nil, err
	}
	b := in.Body
	if b == (schema.NetworkChange{}) {
		return nil, model.Errorf(model.Invalid, "nothing to change is given")
	}
	cmd := command.NetworkUpdate{Network: n.ID, Name: b.Name, Bridge: b.Bridge, VLAN: b.VLAN}
	if b.Nodes != nil {
		nodes, err := bridgesOf(view, *b.Nodes)
		if err != nil {
			return nil, err
		}
		cmd.Nodes = &nodes
	}
	o, err := s.Record.Apply(ctx, by(ctx), cmd)
	return s.networkOf(ctx, o, err)
}

func (s *Server) deleteNetwork(ctx context.Context, in *byRef) (*done, error) {
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, err
	}
	n, err := view.FindNetwork(in.Ref)
	if err != nil {
		return nil, err
	}
	_, err = s.Record.Apply(ctx, by(ctx), command.NetworkDelete{Network: n.ID})
	return finished(err)
}

// nicsOf resolves what is asked for as network cards, and draws the addresses that are
// not given.
func nicsOf(view *state.View, in []schema.NICSpec) ([]model.NIC, error) {
	list := make([]model.NIC, len(in))
	for i, spec := range in {
		network, err := view.FindNetwork(spec.Network)
		if err != nil {
			return nil, err
		}
		n := model.NIC{
			Model: cmp.Or(spec.Model, model.NICVirtio), Network: network.ID, Disconnected: spec.Disconnected,
		}
		if spec.MAC == "" {
			n.MAC = freeMAC(view, list[:i])
		} else if n.MAC, err = model.ParseMAC(spec.MAC); err != nil {
			return nil, err
		}
		list[i] = n
	}
	return list, nil
}

// freeMAC draws an address that no card of the cluster has; the record sees to it again.
func freeMAC(view *state.View, beside []model.NIC) model.MAC {
	for {
		mac := model.NewMAC()
		has := func(nics []model.NIC) bool {
			return slices.ContainsFunc(nics, func(n model.NIC) bool { return n.MAC == mac })
		}
		if !has(beside) && !slices.ContainsFunc(view.VMs(), func(vm model.VM) bool { return has(vm.NICs) }) {
			return mac
		}
	}
}

// nicChanges puts what is asked for about network cards into a change of a machine.
func nicChanges(view *state.View, b schema.VMChange, cmd *command.VMUpdate) (err error) {
	if cmd.AddNICs, err = nicsOf(view, b.AddNICs); err != nil {
		return err
	}
	for _, text := range b.RemoveNICs {
		mac, err := model.ParseMAC(text)
		if err != nil {
			return err
		}
		cmd.RemoveNICs = append(cmd.RemoveNICs, mac)
	}
	for _, c := range b.SetNICs {
		change := model.NICChange{Model: c.Model}
		if change.MAC, err = model.ParseMAC(c.MAC); err != nil {
			return err
		}
		if c.Network != nil {
			network, err := view.FindNetwork(*c.Network)
			if err != nil {
				return err
			}
			change.Network = &network.ID
		}
		if c.Connected != nil {
			cut := !*c.Connected
			change.Disconnected = &cut
		}
		cmd.SetNICs = append(cmd.SetNICs, change)
	}
	return nil
}
