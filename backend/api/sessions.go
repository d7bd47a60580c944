package api

import (
	"context"
	"strings"
	"time"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/auth"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// sessionLife is how long a log-in lasts, used or not.
const sessionLife = 24 * time.Hour

type loginInput struct {
	Body schema.Login
}

// login makes a session. Whether the name or the password was wrong is not told,
// and cannot be told by the time it takes.
func (s *Server) login(ctx context.Context, in *loginInput) (*out[schema.LoginResult], error) {
	c := callOf(ctx)
	account := strings.ToLower(in.Body.User)
	if !c.local {
		if err := s.limits.account.Allow(account); err != nil {
			return nil, err
		}
	}
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, err
	}
	user, err := view.FindUser(in.Body.User)
	if err != nil {
		user = model.User{}
	}
	right, err := s.Hasher.Verify(ctx, user.PasswordHash, model.NewSecret(in.Body.Password))
	if err != nil {
		return nil, err
	}
	if !right {
		s.limits.account.Failed(account)
		// The name is not logged: people type their password into it.
		s.Log.Warn("log-in refused", "address", c.address, "request", c.request)
		return nil, model.Errorf(model.Unknown, "the name or the password is wrong")
	}
	s.limits.account.Succeeded(account)
	token, digest := auth.NewToken()
	c.Subject = auth.Subject{User: user.ID, Name: user.Name, Role: user.Role}
	expires := time.Now().Add(sessionLife).UTC().Truncate(time.Second)
	_, err = s.Record.Apply(ctx, c.actor(), command.SessionCreate{
		TokenHash: digest, User: user.ID, Expires: expires, Address: c.address,
	})
	return answer(schema.LoginResult{Token: token.Reveal(), Expires: expires, User: userOf(c)}, err)
}

func userOf(c call) schema.User { return schema.User{ID: c.User, Name: c.Name, Role: c.Role} }

func (s *Server) logout(ctx context.Context, _ *none) (*done, error) {
	c := callOf(ctx)
	if c.session == "" {
		return &done{}, nil // root on the socket has no session to end
	}
	_, err := s.Record.Apply(ctx, c.actor(), command.SessionDelete{TokenHash: c.session})
	return finished(err)
}

func (s *Server) getSession(ctx context.Context, _ *none) (*out[schema.Session], error) {
	c := callOf(ctx)
	return answer(schema.Session{User: userOf(c), Expires: c.expires}, nil)
}

type passwordInput struct {
	Body schema.PasswordChange
}

// changePassword replaces the caller's password and ends the caller's other
// sessions. The old one is asked for again, and guessing it here is as slow as
// guessing it at the log-in.
func (s *Server) changePassword(ctx context.Context, in *passwordInput) (*done, error) {
	c := callOf(ctx)
	if c.User == 0 {
		return nil, model.Errorf(model.Invalid, "root on the node's own socket has no password")
	}
	account := strings.ToLower(c.Name)
	if err := s.limits.account.Allow(account); err != nil {
		return nil, err
	}
	fresh := model.NewSecret(in.Body.New)
	if err := auth.CheckPassword(c.Name, fresh); err != nil {
		return nil, err
	}
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, err
	}
	user, err := view.User(c.User)
	if err != nil {
		return nil, err
	}
	right, err := s.Hasher.Verify(ctx, user.PasswordHash, model.NewSecret(in.Body.Old))
	if err != nil {
		return nil, err
	}
	if !right {
		s.limits.account.Failed(account)
		return nil, model.Errorf(model.Denied, "the old password is wrong")
	}
	s.limits.account.Succeeded(account)
	hash, err := s.Hasher.Hash(ctx, fresh)
	if err != nil {
		return nil, err
	}
	_, err = s.Record.Apply(ctx, c.actor(), command.UserPassword{
		User: c.User, PasswordHash: command.Keep(hash), Keep: c.session,
	})
	return finished(err)
}
