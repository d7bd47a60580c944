package auth

import (
	"drystone.example/drystone/backend/model"
)

// A Verb is what somebody wants to do.
type Verb string

// The verbs, complete.
const (
	View    Verb = "view"
	Create  Verb = "create"
	Change  Verb = "change"
	Delete  Verb = "delete"
	Power   Verb = "power"   // start, stop, shut down, reset
	Console Verb = "console" // see and type into a machine
	Export  Verb = "export"  // hand a volume's bytes to a program
	Self    Verb = "self"    // what concerns only one's own session and password
	Public  Verb = "public"  // what needs no log-in
)

// A Kind is the noun that something is done to.
type Kind string

// The kinds, complete.
const (
	Cluster Kind = "cluster"
	Node    Kind = "node"
	Token   Kind = "token" // a join token
	Pool    Kind = "pool"
	Disk    Kind = "disk"
	Volume  Kind = "volume"
	Image   Kind = "image"
	File    Kind = "file"
	VM      Kind = "vm"
	Task    Kind = "task"
	Audit   Kind = "audit"
	Metrics Kind = "metrics"
	Session Kind = "session"

	Snapshot Kind = "snapshot" // of a volume
	Network  Kind = "network"
)

// A Subject is who asks. The zero Subject is nobody.
type Subject struct {
	User model.UserID
	Name string
	Role model.Role
}

// An Object is what is asked for. ID is for the error's sentence and may be empty.
type Object struct {
	Kind Kind
	ID   string
}

type deed struct {
	verb Verb
	kind Kind
}

// least is the whole policy: the least role for each deed. What is not in it
// nobody may do.
var least = map[deed]model.Role{
	{View, Cluster}: model.Viewer,
	{View, Node}:    model.Viewer,
	{View, Pool}:    model.Viewer,
	{View, Disk}:    model.Viewer,
	{View, Volume}:  model.Viewer,
	{View, Image}:   model.Viewer,
	{View, VM}:      model.Viewer,
	{View, Task}:    model.Viewer,
	{View, Metrics}: model.Viewer,
	{Self, Session}: model.Viewer,

	{Power, VM}:   model.Operator,
	{Console, VM}: model.Operator,

	{View, Audit}:    model.Admin,
	{View, Token}:    model.Admin,
	{Create, Token}:  model.Admin,
	{Delete, Token}:  model.Admin,
	{Change, Node}:   model.Admin,
	{Delete, Node}:   model.Admin,
	{Create, Disk}:   model.Admin,
	{Change, Disk}:   model.Admin,
	{Create, Volume}: model.Admin,
	{Change, Volume}: model.Admin,
	{Delete, Volume}: model.Admin,
	{Export, Volume}: model.Admin,
	{Create, Image}:  model.Admin,
	{Create, File}:   model.Admin,
	{Create, VM}:     model.Admin,
	{Change, VM}:     model.Admin,
	{Delete, VM}:     model.Admin,
	{Delete, Task}:   model.Admin,

	{View, Network}:   model.Viewer,
	{Create, Network}: model.Admin,
	{Change, Network}: model.Admin,
	{Delete, Network}: model.Admin,

	{Change, Cluster}: model.Admin,
	{Delete, Disk}:    model.Admin,

	{View, Snapshot}:   model.Viewer,
	{Create, Snapshot}: model.Admin,
	{Export, Snapshot}: model.Admin,
	{Export, VM}:       model.Admin,
	{Change, Snapshot}: model.Admin,
	{Delete, Snapshot}: model.Admin,
}

// Allow returns nil if the subject may do verb to the object. Otherwise the error
// is model.Unknown for nobody, who should log in, and model.Denied for somebody
// whose role is too low. A deed that no rule names is denied to everybody.
func Allow(s Subject, verb Verb, o Object) error {
	if verb == Public {
		return nil
	}
	if !s.Role.Includes(model.Viewer) || s.Name == "" {
		return model.Errorf(model.Unknown, "log in first")
	}
	need, ok := least[deed{verb, o.Kind}]
	if !ok {
		return model.Errorf(model.Denied, "nobody may %s a %s", verb, o.Kind)
	}
	if !s.Role.Includes(need) {
		return model.Errorf(model.Denied, "this needs the role %s; %s is %s", need, s.Name, s.Role)
	}
	return nil
}
