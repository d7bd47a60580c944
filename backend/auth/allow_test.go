package auth

import (
	"testing"

	"drystone.example/drystone/backend/model"
)

func TestAllow(t *testing.T) {
	who := func(r model.Role) Subject { return Subject{User: 1, Name: "kim", Role: r} }
	for _, c := range []struct {
		name string
		s    Subject
		verb Verb
		kind Kind
		want model.Code
	}{
		{"nobody may use what is public", Subject{}, Public, Cluster, ""},
		{"nobody may do nothing else", Subject{}, View, Cluster, model.Unknown},
		{"a name without a role is nobody", Subject{User: 1, Name: "kim"}, View, Cluster, model.Unknown},
		{"a role that is none is nobody", who("root"), View, Cluster, model.Unknown},
		{"a role without a name is nobody", Subject{Role: model.Owner}, View, Cluster, model.Unknown},
		{"a viewer views", who(model.Viewer), View, VM, ""},
		{"a viewer does not start", who(model.Viewer), Power, VM, model.Denied},
		{"an operator starts", who(model.Operator), Power, VM, ""},
		{"an operator does not delete", who(model.Operator), Delete, VM, model.Denied},
		{"an admin deletes", who(model.Admin), Delete, VM, ""},
		{"an owner does all that an admin does", who(model.Owner), Delete, Node, ""},
		{"what no rule names is denied to the owner too", who(model.Owner), Power, Pool, model.Denied},
		{"a verb that is none", who(model.Owner), "", VM, model.Denied},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Allow(c.s, c.verb, Object{Kind: c.kind})
			if got := model.CodeOf(err); got != c.want {
				t.Errorf("Allow(%+v, %s, %s) = %v, want code %q", c.s, c.verb, c.kind, err, c.want)
			}
		})
	}
}

// A higher role may do whatever a lower one may.
func TestRolesAreNested(t *testing.T) {
	roles := []model.Role{model.Viewer, model.Operator, model.Admin, model.Owner}
	for d := range least {
		allowed := false
		for _, r := range roles {
			err := Allow(Subject{User: 1, Name: "kim", Role: r}, d.verb, Object{Kind: d.kind})
			if allowed && err != nil {
				t.Errorf("%s may not %s a %s, though a lower role may", r, d.verb, d.kind)
			}
			allowed = allowed || err == nil
		}
		if !allowed {
			t.Errorf("nobody may %s a %s, though a rule names it", d.verb, d.kind)
		}
	}
}
