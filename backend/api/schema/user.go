package schema

import (
	"time"

	"drystone.example/drystone/backend/model"
)

// A Login is a name and a password.
type Login struct {
	User     string `json:"user" maxLength:"63"`
	Password string `json:"password" maxLength:"1024"`
}

// A LoginResult holds the token of a new session, the only time it is shown.
type LoginResult struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
	User    User      `json:"user"`
}

// A User is somebody who is logged in.
type User struct {
	ID   model.UserID `json:"id"`
	Name string       `json:"name"`
	Role model.Role   `json:"role" enum:"viewer,operator,admin,owner"`
}

// A Session says who is asking. Over a node's own socket it does not expire.
type Session struct {
	User    User      `json:"user"`
	Expires time.Time `json:"expires,omitzero"`
}

// A PasswordChange replaces the caller's own password.
type PasswordChange struct {
	Old string `json:"old" maxLength:"1024"`
	New string `json:"new" maxLength:"1024"`
}
