package gateway

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

// The codes that only the app answers with; the page has sentences for them.
const (
	unreachable model.Code = "unreachable" // no node of the cluster answered
	untrusted   model.Code = "untrusted"   // who answered is not of the cluster
)

// authProtocol is how a websocket carries the launch token: a browser can send no
// header of its own with one.
const authProtocol = "auth."

// guard lets through who names the gateway by its own address, comes from an
// allowed origin, and knows the token of this launch.
func (g *Gateway) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != g.Address() {
			refuse(w, http.StatusForbidden, model.Denied, "this address is not for you")
			return
		}
		origin := r.Header.Get("Origin")
		if origin != "" && !slices.Contains(g.origins, origin) {
			refuse(w, http.StatusForbidden, model.Denied, "this address is not for you")
			return
		}
		if origin != "" {
			h := w.Header()
			h.Set("Access-Control-Allow-Origin", origin)
			h.Add("Vary", "Origin")
		}
		// A browser asks first whether it may; that question carries no token.
		if r.Method == http.MethodOptions {
			h := w.Header()
			h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE")
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
			h.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if !g.known(r) {
			// Not "unknown": the page would ask to log in to the cluster.
			refuse(w, http.StatusForbidden, model.Denied, "this window is not the one that was started")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// known compares the launch token in constant time.
func (g *Gateway) known(r *http.Request) bool {
	got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if isUpgrade(r) {
		got, ok = protocolWith(r, authProtocol)
	}
	return ok && subtle.ConstantTimeCompare([]byte(got), []byte(g.token)) == 1
}

func isUpgrade(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// protocols lists the sub-protocols that a websocket asks for.
func protocols(r *http.Request) []string {
	var list []string
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			list = append(list, strings.TrimSpace(p))
		}
	}
	return list
}

// protocolWith returns the rest of the first sub-protocol with a prefix.
func protocolWith(r *http.Request, prefix string) (string, bool) {
	for _, p := range protocols(r) {
		if rest, ok := strings.CutPrefix(p, prefix); ok {
			return rest, true
		}
	}
	return "", false
}

// refuse answers with a problem as the clusters do.
func refuse(w http.ResponseWriter, status int, code model.Code, detail string) {
	w.Header().Set("Content-Type", schema.ProblemType)
	w.WriteHeader(status)
	p := schema.Problem{Title: http.StatusText(status), Status: status, Detail: detail, Code: code}
	//nolint:errcheck,errchkjson // the page has gone if this fails, and nobody else wants to know
	json.NewEncoder(w).Encode(p)
}

// refuseError answers with what went wrong.
func refuseError(w http.ResponseWriter, err error) {
	var e *model.Error
	switch {
	case errors.Is(err, errUntrusted):
		refuse(w, http.StatusBadGateway, untrusted,
			"who answered cannot prove to belong to this cluster")
	case errors.As(err, &e) && e.Code != model.Internal:
		refuse(w, schema.Status(e.Code), e.Code, e.Text)
	default:
		refuse(w, http.StatusInternalServerError, model.Internal, "something went wrong in this app")
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	//nolint:errcheck,errchkjson // the page has gone if this fails, and nobody else wants to know
	json.NewEncoder(w).Encode(v)
}
