package state

import (
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

func (x *tx) userCreate(c command.UserCreate) (any, error) {
	if err := model.ValidateName("user", c.Name); err != nil {
		return nil, err
	}
	switch {
	case c.ID == 0 || c.PasswordHash.Reveal() == "":
		return nil, model.Errorf(model.Invalid, "the user %q needs an identifier and a password", c.Name)
	case !c.Role.Includes(model.Viewer):
		return nil, model.Errorf(model.Invalid, "%q is not a role", c.Role)
	case c.Name == model.System.User:
		return nil, model.Errorf(model.Invalid, "the name %q is the cluster's own", c.Name)
	}
	if _, taken := x.users.names[lower(c.Name)]; taken {
		return nil, model.Errorf(model.Conflict, "there is already a user named %q", c.Name)
	}
	if _, taken := x.users.get(c.ID); taken {
		return nil, model.Errorf(model.Conflict, "the identifier %s is a user already", c.ID)
	}
	u := userRow{User: model.User{ID: c.ID, Name: c.Name, Role: c.Role, Created: x.at}, Hash: c.PasswordHash.Reveal()}
	x.object = userObject(u)
	return u.model(), put(x, &x.users, u)
}

func userObject(u userRow) string { return "user " + u.ID.String() + " " + u.Name }

func (x *tx) userPassword(c command.UserPassword) (any, error) {
	u, err := x.users.find(c.User)
	if err != nil {
		return nil, err
	}
	x.object = userObject(u)
	if c.PasswordHash.Reveal() == "" {
		return nil, model.Errorf(model.Invalid, "the user %q needs a password", u.Name)
	}
	u.Hash = c.PasswordHash.Reveal()
	x.endSessions(u.ID, c.Keep)
	return u.model(), put(x, &x.users, u)
}

func (x *tx) endSessions(id model.UserID, keep string) {
	for _, key := range x.sessions.keys() {
		if x.sessions.rows[key].User == id && key != keep {
			drop(x, &x.sessions, key)
		}
	}
}

func (x *tx) userDelete(c command.UserDelete) (any, error) {
	u, err := x.users.find(c.User)
	if err != nil {
		return nil, err
	}
	x.object = userObject(u)
	owners := 0
	for _, other := range x.users.rows {
		if other.Role == model.Owner {
			owners++
		}
	}
	if u.Role == model.Owner && owners == 1 {
		return nil, model.Errorf(model.Conflict, "%q is the last owner of the cluster", u.Name)
	}
	x.endSessions(u.ID, "")
	drop(x, &x.users, u.ID)
	return u.model(), nil
}

func (x *tx) sessionCreate(c command.SessionCreate) (any, error) {
	u, err := x.users.find(c.User)
	if err != nil {
		return nil, err
	}
	x.object = userObject(u)
	if len(c.TokenHash) != 64 {
		return nil, model.Errorf(model.Invalid, "a session needs the digest of its token")
	}
	if !c.Expires.After(x.at) {
		return nil, model.Errorf(model.Invalid, "the session would have run out already")
	}
	if _, taken := x.sessions.get(c.TokenHash); taken {
		return nil, model.Errorf(model.Conflict, "there is already such a session")
	}
	var mine []model.Session // the one that runs out first comes first
	for _, s := range x.sessions.clone().sorted() {
		if s.User == u.ID {
			mine = append(mine, s)
		}
	}
	for ; len(mine) >= command.MaxSessions; mine = mine[1:] {
		drop(x, &x.sessions, mine[0].TokenHash)
	}
	s := model.Session{TokenHash: c.TokenHash, User: u.ID, Created: x.at, Expires: c.Expires, Address: c.Address}
	return s, put(x, &x.sessions, s)
}

func (x *tx) sessionDelete(c command.SessionDelete) (any, error) {
	if s, ok := x.sessions.get(c.TokenHash); ok {
		x.object = "user " + s.User.String()
	}
	drop(x, &x.sessions, c.TokenHash)
	return nil, nil
}

func (x *tx) sessionsPrune() (any, error) {
	n := 0
	for _, key := range x.sessions.keys() {
		if !x.sessions.rows[key].Expires.After(x.at) {
			drop(x, &x.sessions, key)
			n++
		}
	}
	for _, key := range x.tokens.keys() {
		if !x.tokens.rows[key].Expires.After(x.at) {
			drop(x, &x.tokens, key)
			n++
		}
	}
	return n, nil
}
