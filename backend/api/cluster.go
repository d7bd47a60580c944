package api

import (
	"context"
	"strings"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/metrics"
	"drystone.example/drystone/backend/model"
)

// capabilities are the optional parts of the API that this node has, so that a
// client of another version knows what to show.
func capabilities() []string {
	return []string{"live", "serial-console", "screen-console", "export", "image-import"}
}

func (s *Server) getMeta(context.Context, *none) (*out[schema.Meta], error) {
	view := s.Record.Local()
	m := schema.Meta{
		Product: "drystone", Version: s.Version, API: schema.Version, NodeID: s.Self, Capabilities: capabilities(),
	}
	if c, ok := view.Cluster(); ok {
		m.ClusterID, m.ClusterName = c.ID, c.Name
	}
	if n, err := view.Node(s.Self); err == nil {
		m.NodeName = n.Name
	}
	return answer(m, nil)
}

// getHealth answers with 200 whatever it says: that it answers is part of it.
func (s *Server) getHealth(ctx context.Context, _ *none) (*out[schema.Health], error) {
	p := s.pictureOf(ctx, s.Record.Local())
	h := schema.Health{Status: schema.HealthOK, Leader: p.leader != 0}
	away, out, lost := 0, 0, 0
	for _, n := range p.Nodes() {
		if !p.reports[n.ID].Up {
			away++
		}
	}
	for _, v := range p.Volumes() {
		out += p.health(v).outOfSync
		lost += len(p.volumes[v.ID].Lost)
	}
	switch {
	case !p.quorum:
		h.Status, h.Reason = schema.HealthUnavailable, "there is no leader: a majority of the voters is away"
	case lost > 0:
		h.Status, h.Reason = schema.HealthDegraded, "some data is lost: it has no good copy"
	case away > 0:
		h.Status, h.Reason = schema.HealthDegraded, "some nodes are away"
	case out > 0:
		h.Status, h.Reason = schema.HealthDegraded, "some data has fewer copies than it should"
	}
	return answer(h, nil)
}

func (s *Server) getCluster(ctx context.Context, _ *none) (*out[schema.Cluster], error) {
	p, err := s.anyPicture(ctx)
	if err != nil {
		return nil, err
	}
	c, _ := p.Cluster()
	pool := p.pool()
	o := schema.Cluster{
		ID: c.ID, Name: c.Name, Version: s.Version, Leader: p.leader, Quorum: p.quorum,
		NodesTotal: len(p.Nodes()), VMsTotal: len(p.VMs()), VolumesTotal: len(p.Volumes()),
		ColumnsOutOfSync: pool.ColumnsOutOfSync, Pool: pool.PoolSize,
		Settings: settingsOf(c), Spare: s.Service.Spare(ctx),
	}
	for _, a := range p.leading.Alarms {
		o.Alarms = append(o.Alarms, schema.Alarm(a))
	}
	for _, n := range p.Nodes() {
		r := p.reports[n.ID]
		if r.Up {
			o.NodesUp++
		}
		if n.InMaintenance() {
			o.NodesMaintenance++
			if !r.Up {
				o.NodesResting++
			}
		}
		if r.Hypervisor {
			o.Hypervisor, o.Accel = true, r.Accel
		}
	}
	for _, vm := range p.VMs() {
		if p.vmState(vm) == model.VMRunning {
			o.VMsRunning++
		}
	}
	for _, v := range p.Volumes() {
		o.ColumnsTotal += len(v.Columns)
		if p.health(v).state == schema.VolumeUnavailable {
			o.VolumesUnavailable++
		}
		if v.Scrub.Diverged > 0 {
			o.VolumesDiverged++
		}
		if lost := lostOf(p.volumes[v.ID].Lost); lost != nil {
			o.VolumesLost = append(o.VolumesLost, schema.VolumeLost{ID: v.ID, Name: v.Name, Lost: *lost})
		}
	}
	return answer(o, nil)
}

func settingsOf(c model.Cluster) schema.Settings {
	return schema.Settings{
		Balance: !c.Settings.BalanceOff, RebuildAfter: int64(c.Settings.Patience().Seconds()),
	}
}

type settingsInput struct {
	Body schema.SettingsChange
}

func (s *Server) changeCluster(ctx context.Context, in *settingsInput) (*out[schema.Settings], error) {
	o, err := s.Record.Apply(ctx, by(ctx), command.ClusterSet{
		Balance: in.Body.Balance, RebuildAfter: in.Body.RebuildAfter,
	})
	if err != nil {
		return nil, err
	}
	return answer(settingsOf(o.(model.Cluster)), nil) //nolint:errcheck,forcetypeassert // the command says what it returns
}

func (s *Server) listNodes(ctx context.Context, _ *none) (*out[schema.List[schema.Node]], error) {
	p, err := s.anyPicture(ctx)
	if err != nil {
		return nil, err
	}
	nodes := make([]schema.Node, 0, len(p.Nodes()))
	for _, n := range p.Nodes() {
		nodes = append(nodes, p.node(n))
	}
	return answer(schema.ListOf(nodes), nil)
}

func (s *Server) getNode(ctx context.Context, in *byRef) (*out[schema.Node], error) {
	p, err := s.anyPicture(ctx)
	if err != nil {
		return nil, err
	}
	n, err := p.FindNode(in.Ref)
	if err != nil {
		return nil, err
	}
	return answer(p.node(n), nil)
}

func (s *Server) drainNode(ctx context.Context, in *byRef) (*out[schema.Node], error) {
	return s.maintain(ctx, in.Ref, false)
}

func (s *Server) undrainNode(ctx context.Context, in *byRef) (*out[schema.Node], error) {
	return s.maintain(ctx, in.Ref, true)
}

func (s *Server) maintain(ctx context.Context, ref string, cancel bool) (*out[schema.Node], error) {
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, err
	}
	n, err := view.FindNode(ref)
	if err != nil {
		return nil, err
	}
	n, stuck, err := s.Service.DrainNode(ctx, by(ctx), n.ID, cancel)
	if err != nil {
		return nil, err
	}
	p := s.pictureOf(ctx, s.Record.Local())
	p.leading.Stuck = stuck // the leader may not have looked yet
	return answer(p.node(n), nil)
}

func (s *Server) removeNode(ctx context.Context, in *byRef) (*done, error) {
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, err
	}
	n, err := view.FindNode(in.Ref)
	if err != nil {
		return nil, err
	}
	return finished(s.Service.RemoveNode(ctx, by(ctx), n.ID))
}

type joinInput struct {
	Body schema.JoinRequest
}

func (s *Server) join(ctx context.Context, in *joinInput) (*out[schema.JoinAnswer], error) {
	return answer(s.Service.Join(ctx, callOf(ctx).address, in.Body))
}

func (s *Server) listTokens(ctx context.Context, _ *none) (*out[schema.List[schema.Token]], error) {
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, err
	}
	tokens := make([]schema.Token, 0, len(view.Tokens()))
	for _, t := range view.Tokens() {
		tokens = append(tokens, schema.Token{ID: t.ID, Name: t.Name, Uses: t.Uses, Expires: t.Expires, Created: t.Created})
	}
	return answer(schema.ListOf(tokens), nil)
}

type tokenInput struct {
	Body schema.TokenSpec
}

func (s *Server) createToken(ctx context.Context, in *tokenInput) (*out[schema.NewToken], error) {
	return answer(s.Service.CreateToken(ctx, by(ctx), in.Body))
}

type byID struct {
	ID string `path:"id" minLength:"1" maxLength:"63"`
}

func (s *Server) deleteToken(ctx context.Context, in *byID) (*done, error) {
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, err
	}
	if _, ok := view.Token(strings.ToLower(in.ID)); !ok {
		return nil, model.Errorf(model.NotFound, "there is no token %q", in.ID)
	}
	_, err = s.Record.Apply(ctx, by(ctx), command.TokenDelete{ID: strings.ToLower(in.ID)})
	return finished(err)
}

func (s *Server) listTasks(ctx context.Context, _ *none) (*out[schema.List[schema.Task]], error) {
	tasks, err := s.Service.Tasks(ctx)
	return answer(schema.ListOf(tasks), err)
}

func (s *Server) cancelTask(ctx context.Context, in *byID) (*done, error) {
	id, err := model.ParseID[model.TaskID](in.ID)
	if err != nil {
		return nil, err
	}
	return finished(s.Service.CancelTask(ctx, by(ctx), id))
}

type auditInput struct {
	After uint64 `query:"after" doc:"only rows with a higher index"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`

	Newest bool `query:"newest" doc:"the newest rows, newest first, instead of those after an index"`
}

func (s *Server) listAudit(ctx context.Context, in *auditInput) (*out[schema.List[model.AuditRow]], error) {
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, err
	}
	if in.Newest {
		rows, err := view.NewestAudit(ctx, in.Limit)
		return answer(schema.ListOf(rows), err)
	}
	rows, err := view.Audit(ctx, in.After, in.Limit)
	return answer(schema.ListOf(rows), err)
}

type historyInput struct {
	Topic   schema.Topic `query:"topic" required:"true" enum:"cluster,nodes,disks,vms"`
	Seconds int          `query:"seconds" minimum:"1" maximum:"600" default:"300"`
}

func (s *Server) getHistory(ctx context.Context, in *historyInput) (*out[schema.History], error) {
	watch := s.Metrics.Watch()
	defer watch.Close()
	s.caughtUp(ctx)
	h := s.Metrics.History(metrics.Topic(in.Topic), in.Seconds)
	return answer(historyOf(in.Topic, h), nil)
}
