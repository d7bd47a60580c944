package schema

import (
	"net/http"

	"drystone.example/drystone/backend/model"
)

// A Problem is an error as the API answers it (RFC 9457).
type Problem struct {
	Title     string     `json:"title"`
	Status    int        `json:"status"`
	Detail    string     `json:"detail"`
	Code      model.Code `json:"code"`
	RequestID string     `json:"request_id"`
}

// ProblemType is the media type of a Problem.
const ProblemType = "application/problem+json"

// Status is the HTTP status that a code is answered with.
func Status(code model.Code) int {
	switch code {
	case model.Invalid:
		return http.StatusBadRequest
	case model.NotFound:
		return http.StatusNotFound
	case model.Conflict, model.Fenced:
		return http.StatusConflict
	case model.Denied:
		return http.StatusForbidden
	case model.Unknown:
		return http.StatusUnauthorized
	case model.Unavailable:
		return http.StatusServiceUnavailable
	case model.NoSpace:
		return http.StatusInsufficientStorage
	case model.Corrupt, model.Internal:
		return http.StatusInternalServerError
	}
	return http.StatusInternalServerError
}

// Error is the sentence for a person.
func (p *Problem) Error() string { return p.Detail }

// GetStatus lets the HTTP framework answer a Problem with its status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType lets the HTTP framework answer a Problem with its media type.
func (*Problem) ContentType(string) string { return ProblemType }
