package meta

import (
	"github.com/hashicorp/raft"
)

// announce tells the followers what is committed, as soon as it is applied here.
// Raft itself tells them with the next entries, or after commitTimeout, and so late
// would a change be seen at the follower that asked for it. What is sent is an
// ordinary message of raft without entries; it may be lost, come late or come twice.
func (m *Record) announce() {
	for {
		v := m.store.View()
		select {
		case <-v.Next():
		case <-m.ctx.Done():
			return
		}
		if m.announcement() == nil {
			continue
		}
		for _, s := range m.raft.GetConfiguration().Configuration().Servers {
			if string(s.ID) != serverID(m.cfg.Self) {
				m.announceTo(s)
			}
		}
	}
}

// announceLate tells a peer that has only now stored what the others had committed
// before: it could not use the announcement that came before the entries.
func (m *Record) announceLate(peer raft.Server, commit uint64) {
	if req := m.announcement(); req != nil && req.LeaderCommitIndex > commit {
		m.announceTo(peer)
	}
}

// announcement is what there is to say now; nil while this node does not lead, or
// while there are entries to come, which will tell.
func (m *Record) announcement() *raft.AppendEntriesRequest {
	r, _ := m.lead.now()
	index := m.store.View().Index()
	if r == nil || m.raft.LastIndex() > index {
		return nil
	}
	var last raft.Log
	if m.log.GetLog(index, &last) != nil {
		return nil
	}
	self := serverID(m.cfg.Self)
	me := m.trans.EncodePeer(raft.ServerID(self), raft.ServerAddress(self))
	return &raft.AppendEntriesRequest{
		RPCHeader:         raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(self), Addr: me},
		Term:              r.term,
		PrevLogEntry:      last.Index,
		PrevLogTerm:       last.Term,
		LeaderCommitIndex: last.Index,
	}
}

// announceTo sends an announcement, after the one that is still on its way to that
// peer.
func (m *Record) announceTo(s raft.Server) {
	if !m.trans.begin(s.ID) {
		return
	}
	if !m.spawn(func() {
		for more := true; more; more = m.trans.end(s.ID) {
			if req := m.announcement(); req != nil {
				// An error is no news: raft sends what matters, and logs.
				_ = m.trans.appendOnce(s.ID, s.Address, req, &raft.AppendEntriesResponse{})
			}
		}
	}) {
		m.trans.forget(s.ID)
	}
}
