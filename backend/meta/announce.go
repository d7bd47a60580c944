package meta

import (
	"github.com/hashicorp/raft"
)

// announce tells the followers what is committed, as soon as it is applied here.
// Raft itself tells them with the next entries, or after commitTimeout: a change
// that was asked for at a follower, alone, would be seen there 75 ms late. What
// is sent is an ordinary message of raft without entries; it may be lost, come
// late or come twice.
func (m *Record) announce() {
	for {
		v := m.store.View()
		select {
		case <-v.Next():
		case <-m.ctx.Done():
			return
		}
		r, _ := m.lead.now()
		index := m.store.View().Index()
		if r == nil || m.raft.LastIndex() > index {
			continue // the entries to come will tell
		}
		var last raft.Log
		if m.log.GetLog(index, &last) != nil {
			continue
		}
		for _, s := range m.raft.GetConfiguration().Configuration().Servers {
			if string(s.ID) != serverID(m.cfg.Self) {
				m.announceTo(s, r.term, last)
			}
		}
	}
}

// announceTo sends one announcement, unless one is still on its way to that peer.
func (m *Record) announceTo(s raft.Server, term uint64, last raft.Log) {
	if !m.trans.begin(s.ID) {
		return
	}
	self := serverID(m.cfg.Self)
	me := m.trans.EncodePeer(raft.ServerID(self), raft.ServerAddress(self))
	req := &raft.AppendEntriesRequest{
		RPCHeader:         raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(self), Addr: me},
		Term:              term,
		PrevLogEntry:      last.Index,
		PrevLogTerm:       last.Term,
		LeaderCommitIndex: last.Index,
	}
	if !m.spawn(func() {
		defer m.trans.end(s.ID)
		// An error is no news: raft sends what matters, and logs.
		_ = m.trans.appendOnce(s.ID, s.Address, req, &raft.AppendEntriesResponse{})
	}) {
		m.trans.end(s.ID)
	}
}
