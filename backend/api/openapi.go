package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/auth"
	"drystone.example/drystone/backend/model"
)

const (
	jsonType   = "application/json"
	ndjsonType = "application/x-ndjson"
	octetType  = "application/octet-stream"
	bearer     = "bearer"
)

// humaConfig is the framework with one format and no routes of its own.
func humaConfig(version string) huma.Config {
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:   "Drystone",
				Version: version,
				Description: "Sizes are integer bytes, times are RFC 3339, identifiers are 13 characters, " +
					"and wherever a path has {ref} an identifier or a name will do.",
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					bearer: {Type: "http", Scheme: "bearer", Description: "the token of POST /login"},
				},
			},
		},
		Formats:       map[string]huma.Format{jsonType: strictJSON(), "json": strictJSON()},
		DefaultFormat: jsonType,
		Transformers:  []huma.Transformer{reshape},

		RejectUnknownQueryParameters: true,
	}
}

// operation describes a route to the framework.
func (r route) operation() huma.Operation {
	op := huma.Operation{
		OperationID:  r.id,
		Method:       r.method,
		Path:         r.path,
		Summary:      r.summary,
		Tags:         []string{strings.Split(r.path, "/")[1]},
		MaxBodyBytes: r.body,
		Responses:    map[string]*huma.Response{"default": problemResponse()},
		// The guard has set the deadline; the framework's own would shorten it.
		BodyReadTimeout: quick,
	}
	if r.verb != auth.Public {
		op.Security = []map[string][]string{{bearer: {}}}
		op.Description = fmt.Sprintf("Needs to be allowed to %s a %s.", r.verb, r.kind)
	}
	return op
}

func problemResponse() *huma.Response {
	return &huma.Response{
		Description: "The request was refused or failed.",
		Content: map[string]*huma.MediaType{
			schema.ProblemType: {Schema: &huma.Schema{Ref: "#/components/schemas/Problem"}},
		},
	}
}

// finishSpec makes the description say what is true here: a list is never null,
// and errors are Problems.
func finishSpec(spec *huma.OpenAPI) {
	for _, t := range []reflect.Type{
		reflect.TypeFor[schema.Problem](),
		// What goes over the live stream belongs to no operation.
		reflect.TypeFor[schema.LiveRequest](),
		reflect.TypeFor[schema.MetricsFrame](),
		reflect.TypeFor[schema.EventFrame](),
	} {
		spec.Components.Schemas.Schema(t, true, t.Name())
	}
	all := spec.Components.Schemas.Map()
	delete(all, "ErrorModel")
	delete(all, "ErrorDetail")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		neverNull(all[name])
	}
	if p := all["Problem"].Properties["code"]; p != nil {
		for _, c := range []model.Code{
			model.Invalid, model.NotFound, model.Conflict, model.Denied, model.Unknown,
			model.Unavailable, model.Fenced, model.NoSpace, model.Corrupt, model.Internal,
		} {
			p.Enum = append(p.Enum, string(c))
		}
	}
}

// neverNull goes through a schema and what is inside it.
func neverNull(s *huma.Schema) {
	if s == nil || s.Ref != "" {
		return
	}
	if s.Type == huma.TypeArray {
		s.Nullable = false
		neverNull(s.Items)
	}
	for _, p := range s.Properties {
		neverNull(p)
	}
	if inner, ok := s.AdditionalProperties.(*huma.Schema); ok {
		neverNull(inner)
	}
}

// Spec is the description of the API in OpenAPI 3.1, as docs/openapi.json has it.
func (s *Server) Spec() ([]byte, error) {
	text, err := json.MarshalIndent(s.spec.OpenAPI(), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("describe the api: %w", err)
	}
	return append(text, '\n'), nil
}

func (s *Server) getOpenAPI(w http.ResponseWriter, _ *http.Request) error {
	text, err := s.Spec()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/openapi+json")
	_, err = w.Write(text)
	return err //nolint:wrapcheck // only logged
}

// What follows describes the routes that speak HTTP themselves.

func describeOpenAPI(_ huma.API, op *huma.Operation) {
	op.Responses["200"] = &huma.Response{
		Description: "OpenAPI 3.1",
		Content:     map[string]*huma.MediaType{"application/openapi+json": {Schema: &huma.Schema{Type: huma.TypeObject}}},
	}
}

func describeSocket(_ huma.API, op *huma.Operation) {
	op.Responses["101"] = &huma.Response{Description: "A websocket."}
	op.Parameters = pathParams(op.Path)
}

func describePicture(_ huma.API, op *huma.Operation) {
	op.Parameters = pathParams(op.Path)
	op.Responses["200"] = &huma.Response{
		Description: "A picture of the screen.",
		Content:     map[string]*huma.MediaType{"image/png": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}},
	}
}

func describeExport(api huma.API, op *huma.Operation) {
	op.Parameters = pathParams(op.Path)
	op.RequestBody = bodyOf[schema.ExportSpec](api, jsonType)
	op.Responses["200"] = linesOf[schema.ExportEvent](api, "The export is ready; it ends with the request.")
}

func describeDiff(api huma.API, op *huma.Operation) {
	op.Parameters = append(pathParams(op.Path), &huma.Param{
		Name: "until", In: "query", Schema: &huma.Schema{Type: huma.TypeString},
		Description: "a later snapshot of the volume; without it, the volume as it is",
	})
	op.Responses["200"] = linesOf[schema.SnapshotDiff](api, "What was changed, range by range.")
}

func describeImport(api huma.API, op *huma.Operation) {
	name, least := &huma.Schema{Type: huma.TypeString}, 1.0
	op.Parameters = []*huma.Param{
		{Name: "name", In: "query", Required: true, Schema: name, Description: "of the volume"},
		{Name: "format", In: "query", Description: "without it, it is found by what is in the file", Schema: &huma.Schema{
			Type: huma.TypeString, Enum: anyOf(schema.ImageFormats),
		}},
		{Name: "copies", In: "query", Schema: &huma.Schema{Type: huma.TypeInteger, Minimum: &least}},
	}
	op.RequestBody = octets("the image file")
	op.Responses["200"] = linesOf[schema.ImportEvent](api, "Progress, and at last the volume or an error.")
}

func anyOf[T any](list []T) (out []any) {
	for _, v := range list {
		out = append(out, v)
	}
	return out
}

func describeAppend(api huma.API, op *huma.Operation) {
	text := &huma.Schema{Type: huma.TypeString}
	op.Parameters = append(pathParams(op.Path),
		&huma.Param{
			Name: offsetHeader, In: "header", Required: true, Schema: &huma.Schema{Type: huma.TypeInteger},
			Description: "where in the file the body begins: the upload's offset",
		},
		&huma.Param{
			Name: checksumHeader, In: "header", Schema: text,
			Description: "\"sha256 \" and the body's digest in base64; the body has at most 32 MiB then, and counts whole or not at all",
		})
	op.RequestBody = octets("more of the image file")
	op.Responses["200"] = &huma.Response{
		Description: "How far the upload is.",
		Content:     map[string]*huma.MediaType{jsonType: {Schema: schemaOf[schema.Upload](api)}},
	}
}

func describeFinish(api huma.API, op *huma.Operation) {
	op.Parameters = pathParams(op.Path)
	op.RequestBody = bodyOf[schema.UploadEnd](api, jsonType)
	op.Responses["200"] = linesOf[schema.ImportEvent](api, "Progress, and at last the volume or an error.")
}

func describeFetch(api huma.API, op *huma.Operation) {
	op.RequestBody = bodyOf[schema.ImageFetch](api, jsonType)
	op.Responses["200"] = linesOf[schema.ImportEvent](api, "Progress, and at last the volume or an error.")
}

func describeVMExport(api huma.API, op *huma.Operation) {
	op.Parameters = pathParams(op.Path)
	op.RequestBody = bodyOf[schema.VMExportSpec](api, jsonType)
	op.Responses["200"] = linesOf[schema.VMExportEvent](api, "Progress, and at last where the export is, or an error.")
}

func describeDownload(_ huma.API, op *huma.Operation) {
	op.Parameters = pathParams(op.Path)
	op.Responses["200"] = &huma.Response{
		Description: "The file; parts of it can be asked for (Range).",
		Content:     map[string]*huma.MediaType{octetType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}},
	}
}

func describeVMImport(api huma.API, op *huma.Operation) {
	op.Parameters = pathParams(op.Path)
	op.RequestBody = bodyOf[schema.VMImportSpec](api, jsonType)
	op.Responses["200"] = linesOf[schema.ImportEvent](api, "Progress, and at last the machine or an error.")
}

func describePutFile(api huma.API, op *huma.Operation) {
	op.Parameters = append(pathParams(op.Path), &huma.Param{
		Name: "name", In: "query", Schema: &huma.Schema{Type: huma.TypeString}, Description: "for people",
	})
	op.RequestBody = octets("the file")
	op.Responses["200"] = &huma.Response{
		Description: "The file is kept.",
		Content:     map[string]*huma.MediaType{jsonType: {Schema: schemaOf[model.FileRef](api)}},
	}
}

func pathParams(path string) (params []*huma.Param) {
	for part := range strings.SplitSeq(path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			params = append(params, &huma.Param{
				Name: strings.TrimSuffix(name, "}"), In: "path", Required: true,
				Schema: &huma.Schema{Type: huma.TypeString},
			})
		}
	}
	return params
}

func schemaOf[T any](api huma.API) *huma.Schema {
	return api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, reflect.TypeFor[T]().Name())
}

func bodyOf[T any](api huma.API, media string) *huma.RequestBody {
	return &huma.RequestBody{
		Required: true,
		Content:  map[string]*huma.MediaType{media: {Schema: schemaOf[T](api)}},
	}
}

func octets(what string) *huma.RequestBody {
	return &huma.RequestBody{
		Required: true, Description: what,
		Content: map[string]*huma.MediaType{octetType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}},
	}
}

func linesOf[T any](api huma.API, what string) *huma.Response {
	return &huma.Response{
		Description: what + " One JSON object per line.",
		Content:     map[string]*huma.MediaType{ndjsonType: {Schema: schemaOf[T](api)}},
	}
}
