package api

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/auth"
	"drystone.example/drystone/backend/model"
)

// problem makes the answer of an error. Whatever has no code is internal: its
// text goes to the log, and the answer names the request to look for there.
func (s *Server) problem(ctx context.Context, err error) *schema.Problem {
	c := callOf(ctx)
	p := &schema.Problem{RequestID: c.request}
	var often *auth.TooOften
	var tooLarge *http.MaxBytesError
	var coded *model.Error
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &often):
		p.Code, p.Detail, p.Status = model.Denied, often.Error(), http.StatusTooManyRequests
	case errors.As(err, &tooLarge):
		p.Code, p.Status = model.Invalid, http.StatusRequestEntityTooLarge
		p.Detail = "the request has more than " + strconv.FormatInt(tooLarge.Limit, 10) + " bytes"
	case errors.As(err, &coded) && coded.Code != model.Internal:
		p.Code, p.Detail = coded.Code, coded.Text
	case errors.Is(err, context.DeadlineExceeded):
		p.Code, p.Detail = model.Unavailable, "the cluster did not answer in time; try again"
	case errors.Is(err, context.Canceled):
		p.Code, p.Detail = model.Unavailable, "the request was cancelled"
	default:
		p.Code = model.Internal
		p.Detail = "an internal error; the node's log has it under request " + c.request
		s.Log.Error("request failed", "request", c.request, "method", c.method, "route", c.route, "err", err)
	}
	if p.Status == 0 {
		p.Status = schema.Status(p.Code)
	}
	p.Title = http.StatusText(p.Status)
	return p
}

// fail makes a handler's error one that the framework answers as it should.
func (s *Server) fail(ctx context.Context, err error) error {
	p := s.problem(ctx, err)
	if h := headersOf(p, err); h != nil {
		return huma.ErrorWithHeaders(p, h)
	}
	return p
}

// headersOf are the headers that go with an error.
func headersOf(p *schema.Problem, err error) http.Header {
	var often *auth.TooOften
	switch {
	case errors.As(err, &often):
		return http.Header{"Retry-After": {strconv.Itoa(int(often.Wait.Seconds()))}}
	case p.Status == http.StatusUnauthorized:
		return http.Header{"Www-Authenticate": {"Bearer"}}
	}
	return nil
}

// refuse answers a request with an error.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := s.problem(r.Context(), err)
	h := w.Header()
	maps.Copy(h, headersOf(p, err))
	h.Set("Content-Type", schema.ProblemType)
	w.WriteHeader(p.Status)
	if err := json.NewEncoder(w).Encode(p); err != nil {
		s.Log.Debug("answer not sent", "request", p.RequestID, "err", err)
	}
}

// reshape turns the framework's own errors (a body of the wrong shape, an unknown
// parameter) into Problems. It leaves out the values it complains about: one of
// them may be a password.
func reshape(ctx huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	c := callOf(ctx.Context())
	p := &schema.Problem{
		Title: e.Title, Status: e.Status, Detail: e.Detail, Code: model.Invalid, RequestID: c.request,
	}
	if e.Status >= http.StatusInternalServerError {
		p.Code, p.Detail = model.Internal, "an internal error"
		return p, nil
	}
	var all []string
	for _, d := range e.Errors {
		text := d.Message
		if d.Location != "" {
			text = d.Location + ": " + text
		}
		all = append(all, text)
	}
	if len(all) > 0 {
		p.Detail = "the request is not valid: " + strings.Join(all, "; ")
	}
	return p, nil
}

// lineError is an error inside a stream.
func (s *Server) lineError(ctx context.Context, err error) *schema.LineError {
	p := s.problem(ctx, err)
	return &schema.LineError{Code: p.Code, Detail: p.Detail}
}
